"""The committed figures: claims that can fail, pictures and reports that follow from the tables alone."""

import csv
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.container import Container
from matplotlib.lines import Line2D

from experiments.analysis import arms, pages, plotting
from experiments.analysis.claims import REPRODUCED, Superiority, evaluate

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "results"
FIGURES = pages.available(RESULTS)
# One process has both tests of a figure, and judges it once.
GROUPED = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in FIGURES]
DRAWN = {name for name in FIGURES if name not in pages.sources(pages.module_of(name), name)}  # from runs of others

SIGMAS = (0.001, 0.01, 0.1, 0.3, 1, 3, 10)
TRAINING = {"fig6b"}  # its claims are committed before its results: it has few runs yet


@cache
def judged(name: str) -> pages.Report:
    return pages.judge(name, RESULTS)


def test_every_experiment_with_a_configuration_has_committed_results() -> None:
    configured = {path.stem for path in (ROOT / "configs/experiment").glob("*.yaml")}
    assert configured - TRAINING == set(FIGURES) - DRAWN - TRAINING


@pytest.mark.parametrize("name", GROUPED)
def test_no_reproduced_claim_survives_swapped_labels(name: str) -> None:
    verdicts, results = judged(name).verdicts, judged(name).results
    reproduced = [verdict.claim for verdict in verdicts if verdict.verdict == REPRODUCED]
    assert reproduced or not verdicts or name in TRAINING, "a figure that reproduces nothing would make this test idle"
    assert not [c.id for c in reproduced if evaluate(replace(c, opposite=True), results).verdict == REPRODUCED]


@pytest.mark.parametrize("name", GROUPED)
def test_claims_have_names_of_their_own_and_notes_are_written(name: str) -> None:
    ids = [verdict.claim.id for verdict in judged(name).verdicts]
    assert len(set(ids)) == len(ids)
    assert len(pages.notes(judged(name))) > 200


@pytest.mark.parametrize("name", FIGURES)
def test_every_gain_has_a_smallest_effect_worth_naming_or_says_why_not(name: str) -> None:
    claims = pages.module_of(name).CLAIMS
    silent = [c.id for c in claims if isinstance(c, Superiority) and c.margin == 0 and not c.argued]
    assert not silent


def test_no_earlier_claim_vanishes() -> None:
    with (RESULTS / "earlier.csv").open(newline="") as file:
        earlier = [(row["figure"], row["id"]) for row in csv.DictReader(file)]
    assert len({*earlier}) == len(earlier) == 517
    for name in FIGURES:
        module = pages.module_of(name)
        now, retired = {claim.id for claim in module.CLAIMS}, getattr(module, "RETIRED", {})
        assert {id for figure, id in earlier if figure == name} - now == retired.keys(), name
        assert all(words.strip() for words in retired.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", GROUPED)
def test_drawn_again_its_files_are_the_same_and_one_arm_looks_the_same_in_all(name: str, monkeypatch) -> None:
    figures, files = [], plotting.files
    monkeypatch.setattr(plotting, "files", lambda figure, folder: figures.append(figure) or files(figure, folder))
    for path, content in pages.pictures(judged(name), RESULTS).items():
        assert path.read_bytes() == content, path.name
    standard = {look.label: look for look in (*arms.LOOKS.values(), *(arms.look("syre", s) for s in SIGMAS))}
    drawn: dict[tuple[Axes | None, str], Line2D] = {}  # by whose legend it is in: that of a panel, or of them all
    for ax in figures[0].axes:
        whose = ax if ax.get_legend() else None
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            line = handle[0] if isinstance(handle, Container) else handle
            look = arms.SAME_START if "start kept" in label else standard.get(label)
            if not isinstance(line, Line2D):
                continue
            first = drawn.setdefault((whose, label), line)
            assert to_hex(line.get_color()) == to_hex(first.get_color()), label
            if look is not None:
                assert to_hex(line.get_color()) == look.color.lower(), label
                assert line.get_marker() in (look.marker, "None"), label  # a training curve needs no markers
    for ((whose, label), line), ((other, another), rival) in itertools.combinations(drawn.items(), 2):
        assert whose is not other or appearance(line) != appearance(rival), (label, another)


def appearance(line: Line2D) -> tuple[str, ...]:
    """What of a line tells an arm from another."""
    filled = "" if line.get_markerfacecolor() == "none" else "filled"
    edge = to_hex(line.get_markeredgecolor())
    return to_hex(line.get_color()) if filled else edge, str(line.get_marker()), str(line.get_linestyle()), filled


def looks_in(value: object) -> Iterator[plotting.Look]:
    """The looks that a global of a module is made of."""
    if isinstance(value, plotting.Look):
        yield value
    elif isinstance(value, Mapping):
        yield from (look for each in (*value.keys(), *value.values()) for look in looks_in(each))
    elif isinstance(value, list | tuple):
        yield from (look for each in value for look in looks_in(each))
    elif isinstance(found := getattr(value, "look", None), plotting.Look):
        yield found


def borrowed(look: plotting.Look) -> list[str]:
    """The arms whose colour a look has that is of another arm."""
    known = [*arms.LOOKS.values(), arms.SAME_START, arms.NOT_SHARED]
    first = {each.label.split()[0].strip(",") for each in known}
    mine = look.label.split()[0].strip(",")
    if mine not in first:  # no arm
        return []
    same = [each for each in known if each.color.lower() == look.color.lower()]
    return [
        each.label
        for each in same
        if each.label.split()[0].strip(",") != mine
        or (each.marker != look.marker and not look.label.startswith(each.label))
    ]


def test_no_arm_of_any_figure_has_the_colour_of_another_and_one_label_has_one_look() -> None:
    found = [(name, look) for name in pages.names() for value in vars(pages.module_of(name)).values()
             for look in looks_in(value)]  # fmt: skip
    assert len(found) > 30
    assert not [(name, look.label, borrowed(look)) for name, look in found if borrowed(look)]
    labels: dict[str, plotting.Look] = {}
    for name, look in found:
        if look.label != "_":  # in no legend
            assert labels.setdefault(look.label, look) == look, name


@pytest.mark.parametrize(
    ("label", "color", "marker", "of"),
    [  # looks that figures had
        ("syre, σ = 1, start of the others", "#009E73", "x", ["syre, advanced"]),
        ("syre, σ = 1, anchors not shared", "#000000", "P", ["vanilla"]),
        ("syre, σ = 1, start of decay alone", "#E69F00", "x", ["W-fix"]),
        ("syre, bias fixed at 0.01/√5", "#CC79A7", "v", ["dropout"]),
        ("W-fix, κ = 0.1", "#E69F00", "^", []),
        ("syre with D, σ = 1", "#009E73", "P", []),
        ("fig. 2: symmetric neurons", "#E69F00", "o", []),
    ],
)
def test_control_a_borrowed_colour_is_seen(label: str, color: str, marker: str, of: list[str]) -> None:
    assert borrowed(plotting.Look(label=label, color=color, marker=marker)) == of
