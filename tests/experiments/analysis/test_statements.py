"""The front page: 26 statements that refer to claims there are, judged in words by one rule, with failures in sight."""

import re
from pathlib import Path

import numpy as np
import pytest

from experiments.analysis import overview as front
from experiments.analysis import pages
from experiments.analysis.claims import CONTRARY, INCONCLUSIVE, NOT_REPRODUCED, NOT_TESTED, REPRODUCED, Superiority
from experiments.analysis.overview import CELLS, overview
from experiments.analysis.statements import IDENTITY, STATEMENTS, WORDS, Statement, in_words, references

ROOT = Path(__file__).parents[3]
YES, NO, OPEN, UNTESTED, AGAINST = REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE, NOT_TESTED, CONTRARY


# ---- what is committed -----------------------------------------------------------------------------------------------


def test_there_are_26_sentences_in_the_order_of_the_paper() -> None:
    assert [s.number for s in STATEMENTS] == list(range(1, 27))
    for s in STATEMENTS:
        assert s.text.endswith(".")
        assert s.where
        assert len(s.text) < 120
        assert not re.search(r"\b([Tt]he same|above statement|it too)\b", s.text), "a sentence stands alone"


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda s: str(s.number))
def test_its_cells_are_claims_that_there_are_or_say_why_there_is_none(statement: Statement) -> None:
    assert statement.figure in pages.names()
    for cell in (getattr(statement, name) for name in CELLS):
        for ref in references(cell):
            figure, _, id = ref.partition("/")
            assert id in {claim.id for claim in pages.module_of(figure).CLAIMS}, ref
        if not references(cell):
            assert " " in cell, "some words"
            assert all((ROOT / path).is_file() for path in re.findall(r"tests/\S+", cell))


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda s: str(s.number))
def test_what_is_compared_with_no_decay_is_a_gain(statement: Statement) -> None:
    """So that what is not reproduced says that no decay is as good: the first sentence counts on it."""
    for ref in references(statement.no_decay):
        figure, _, id = ref.partition("/")
        (claim,) = (claim for claim in pages.module_of(figure).CLAIMS if claim.id == id)
        assert isinstance(claim, Superiority)


def test_the_committed_report_opens_with_all_of_them() -> None:
    text = (ROOT / "results/REPORT.md").read_text()
    before, _, after = text.partition("## Every claim")
    assert [int(n) for n in re.findall(r"^\| (\d+) \|", before, re.MULTILINE)] == list(range(1, 27))
    first = before.splitlines()[2]
    assert first.startswith("**By some measure no decay at all is as good as the best arm of syre")
    assert not re.findall(r"^\| \d+ \|", after, re.MULTILINE)


# ---- in words --------------------------------------------------------------------------------------------------------


def statement(**cells: str | tuple[str, ...]) -> Statement:
    words = dict.fromkeys(CELLS, "no claim yet")
    return Statement(number=1, text="A sentence.", where="1", figure="fig1", metric="loss", **words | cells)


@pytest.mark.parametrize(
    ("recommended", "best", "words"),
    [
        ([YES], [YES], "holds as recommended"),
        ([YES, YES], [OPEN], "holds as recommended"),
        ([YES], [], "holds at any σ"),
        ([OPEN], [YES, YES], "holds at larger σ"),
        ([NO], [YES], "holds at larger σ"),
        ([], [YES], "holds at larger σ"),
        ([YES], [NO], "partly holds"),
        ([YES], [AGAINST], "partly holds"),
        ([NO], [YES, NO], "partly holds"),
        ([YES, UNTESTED], [], "partly holds"),
        ([NO, OPEN], [NO], "contradicted"),
        ([NO], [AGAINST], "contradicted"),
        ([AGAINST, OPEN], [UNTESTED], "contrary so far"),
        ([OPEN, UNTESTED], [OPEN], "not shown here"),
        ([UNTESTED], [UNTESTED], "not decided yet"),
        ([], [], "not decided yet"),
    ],
)
def test_a_verdict_in_words_follows_from_the_first_two_cells(recommended, best, words) -> None:
    assert in_words(statement(), recommended, best) == words
    assert in_words(statement(), recommended[::-1], best[::-1]) == words
    assert words in WORDS


def test_an_identity_is_one_that_a_test_checks() -> None:
    exact = statement(recommended=f"{IDENTITY} tests/test_theory.py")
    assert in_words(exact, [], []) == "holds, an identity"
    assert in_words(statement(), [], []) == "not decided yet"  # control


def test_words_with_a_slash_are_no_claim() -> None:
    assert references("exact identity: tests/test_theory.py") == ()
    assert references("fig5/rank/effective-keep") == ("fig5/rank/effective-keep",)
    assert references(("fig5/a", "fig9/b")) == ("fig5/a", "fig9/b")


# ---- the page --------------------------------------------------------------------------------------------------------


def summaries(**figures: dict[str, tuple[str, float]]):
    """Summaries of figures: id -> (verdict, p); the effect is the id."""
    return [
        {
            **{"name": name, "scale": "cpu"},
            "verdicts": [
                {"id": id, "text": f"{id}.", "verdict": verdict, "p": p, "effect": f"+{id}", "against": "> 0", "n": 5}
                | {"paper": ""}
                for id, (verdict, p) in claims.items()
            ],
        }
        for name, claims in figures.items()
    ]


def page(monkeypatch, statements, **figures) -> list[str]:
    monkeypatch.setattr(front, "STATEMENTS", tuple(statements))
    return overview(summaries(**figures)).splitlines()


def row(lines: list[str]) -> list[str]:
    return [cell.strip() for cell in lines[6].strip("| ").split(" | ")]


def test_cells_show_effects_and_marks_and_many_are_counted(monkeypatch) -> None:
    some = statement(
        recommended="fig1/a", best=("fig1/a", "fig1/b"), no_decay="fig1/c", rival=tuple(f"fig1/{k}" for k in "abcde")
    )
    claims = {"a": (YES, 1e-6), "b": (NO, 0.9), "c": (OPEN, 0.04), "d": (YES, 0.04), "e": (AGAINST, np.nan)}
    lines = page(monkeypatch, [some], fig1=claims)
    assert lines[0] == "# What of the paper holds"
    assert row(lines) == [
        *("1", "A sentence. (1; [fig1](fig1/report.md)) *loss*", r"+a ✓\*", r"+a ✓\*<br>+b ✗", "+c ?"),
        *(r"1 !, 1 ✗, 1 ?, 1 ✓\*, 1 ✓", "cpu", "partly holds"),
    ]
    assert "over the 4 claims tested in this table, at 0.05: 1 of the 2 reproduced do" in " ".join(lines)


def test_holm_spans_all_headlines_and_no_other_claim(monkeypatch) -> None:
    """p = 0.02 survives alone or beside claims that are no headlines, and not among four headlines."""
    headline, others = {"a": (YES, 0.02)}, dict.fromkeys("bcd", (OPEN, 0.5))
    one = [statement(recommended="fig1/a")]
    assert row(page(monkeypatch, one, fig1=headline | others))[2] == r"+a ✓\*"
    four = [*one, *(statement(rival=f"fig1/{k}") for k in "bcd")]
    assert row(page(monkeypatch, four, fig1=headline | others))[2] == "+a ✓"
    lucky = {"a": (NO, 1e-9)}  # control: what does not reproduce has no star, whatever its p
    assert row(page(monkeypatch, one, fig1=lucky))[2] == "+a ✗"


def test_the_first_sentence_counts_where_no_decay_is_as_good(monkeypatch) -> None:
    said = {"fig1": YES, "fig3": NO, "fig5": NO, "fig6": UNTESTED, "fig9": OPEN, "fig12": AGAINST}
    statements = [statement(no_decay=f"{name}/a") for name in said]
    statements.append(statement(no_decay=("fig5/b", "fig1/b")))
    figures = {name: {"a": (verdict, 0.5), "b": (YES, 0.01)} for name, verdict in said.items()}
    first = page(monkeypatch, statements, **figures)[2]
    assert "or better, in 3 (fig3, fig5, fig12) of the 6 figures where the two are compared" in first
    assert "by all measures syre wins in 1 (fig1); open: 2 (fig6, fig9)" in first
    assert first.endswith("The 7 statements: *not decided yet* 7.")
    none = page(monkeypatch, [statement(no_decay="fig1/a")], fig1=figures["fig1"])[2]
    assert "or better, in none of the 1 figures" in none
    assert "No decay" not in page(monkeypatch, [statement()], fig1=figures["fig1"])[2]


def test_only_statements_of_figures_with_results_are_shown(monkeypatch) -> None:
    here, elsewhere = statement(best=("fig1/a", "fig2/a")), Statement(**vars(statement()) | {"figure": "fig2"})
    lines = page(monkeypatch, [here, elsewhere], fig1={"a": (YES, 0.001)})
    assert row(lines)[3] == r"+a ✓\*"
    assert row(lines)[-1] == "holds at larger σ"
    assert "The 1 statements" in lines[2]
    assert page(monkeypatch, [elsewhere], fig1={"a": (YES, 0.001)})[2] == "## Every claim and its verdict"
    with pytest.raises(KeyError, match="no claim fig1/z"):
        page(monkeypatch, [statement(best="fig1/z")], fig1={"a": (YES, 0.001)})
