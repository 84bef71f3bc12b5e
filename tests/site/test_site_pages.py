"""The pages of the site say what the repository says: links, lists, claims, and every figure. No mkdocs here."""

import re
from pathlib import Path

import pytest

from scripts.site import contents, pages, tables
from scripts.site.links import rewritten
from scripts.site.pictures import Picture

ROOT = Path(__file__).parents[2]
FIGURES, CLAIMS = tables.figures(ROOT / "results"), tables.claims(ROOT / "results")
PLACES = contents.places(ROOT, FIGURES, ["diagnose.md"])


@pytest.mark.parametrize(
    ("source", "page", "text", "expected"),
    [
        ("README.md", "index.md", "[a](results/fig5/report.md)", "[a](figures/fig5.md)"),
        ("README.md", "index.md", "[`make fig5`](results/fig5)", "[`make fig5`](figures/fig5.md)"),
        ("docs/diagnose.md", "diagnose.md", "[r](../results/fig5)", "[r](figures/fig5.md)"),
        ("docs/diagnose.md", "diagnose.md", "[r](../README.md#data)", "[r](index.md#data)"),
        ("results/fig5/report.md", "figures/fig5.md", "[d](../../docs/diagnose.md#a)", "[d](../diagnose.md#a)"),
        ("results/REPORT.md", "statements.md", "[fig1](fig1/report.md)", "[fig1](figures/fig1.md)"),
        (
            "README.md",
            "index.md",
            "[the YAML](configs/experiment/fig5.yaml)",
            "[the YAML](figures/fig5.md#configuration-and-code)",
        ),
        ("README.md", "index.md", "[core](syre/core)", "[core](api/core.md)"),
        ("README.md", "index.md", "![x](results/fig5/figure.png)", "![x](pictures/fig5.png)"),
        ("README.md", "index.md", '<img src="results/fig5/figure.png">', '<img src="pictures/fig5.png">'),
        ("README.md", "index.md", '<a href="results/fig5/report.md">', '<a href="figures/fig5.html">'),
        ("README.md", "index.md", "[x](https://arxiv.org/a) [y](#z)", "[x](https://arxiv.org/a) [y](#z)"),
        # what the site does not show is named
        ("docs/diagnose.md", "diagnose.md", "[tests/x.py](../tests/x.py)", "`tests/x.py`"),
        ("README.md", "index.md", "[the Makefile](Makefile)", "the Makefile (`Makefile`)"),
        ("README.md", "index.md", "[![x](results/fig5/figure.png)](none.md)", "![x](pictures/fig5.png)"),
        # code stays as it is
        (
            "README.md",
            "index.md",
            "```\n[a](results/fig5/report.md)\n- b\n```",
            "```\n[a](results/fig5/report.md)\n- b\n```",
        ),
        # a list needs a blank line before it, and no other one
        ("README.md", "index.md", "said:\n- a\n  more\n- b\n\n1. c", "said:\n\n- a\n  more\n- b\n\n1. c"),
    ],
)
def test_a_text_of_the_repository_is_one_of_the_site(source, page, text, expected):
    assert rewritten(text, source, page, PLACES) == expected


def test_the_opening_is_up_to_its_mark_or_to_the_first_heading_after_the_code():
    readme = "# syre\n\n## Use\n\n```python\n# ## no heading\n```\n\nIt does.\n\n## Rest\n\nmore"
    assert pages.opening(readme).endswith("It does.")
    assert pages.opening(readme.replace("It does.", "It <!-- /opening --> does.")).endswith("It")
    said = pages.opening((ROOT / "README.md").read_text())
    assert "syre.attach(optimizer, model" in said
    assert "<!-- figures -->" not in said


def test_pictures_on_the_front_page_are_the_copies_that_load_fast():
    picture = Picture(path="pictures/a.webp", width=30, height=20, content=b"")
    text = "[![two\nlines](pictures/a.png)](figures/a.md) ![b](pictures/b.png)"
    assert pages.with_pictures(text, {"a": picture}) == (
        '[<img src="pictures/a.webp" alt="two lines" width="30" height="20" fetchpriority="high">](figures/a.md) '
        "![b](pictures/b.png)"
    )


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_the_page_of_a_figure_has_its_claims_its_settings_its_code_and_its_command(figure):
    report = (ROOT / f"results/{figure.name}/report.md").read_text()
    code = {f"experiments/figures/{figure.name}.py": "print('the code')"}
    page = pages.figure_page(figure, CLAIMS, report, code, None, PLACES, list(figure.sources))
    own = [row for row in CLAIMS if row["figure"] == figure.name]
    assert own or figure.name == "front"
    for row in own:
        said = row["text"].replace("|", "\\|")
        shown = [line for line in page.splitlines() if line.startswith(f"| **{row['id']}** {said}")]
        assert len(shown) == 1, row["id"]
        assert f">{row['verdict']}</span>" in shown[0]
        assert pages.effect(row) in shown[0]
    assert f"`make {figure.name}`" in page
    assert "print('the code')" in page
    assert (f"explorer.html#figure={figure.name}" in page) == bool(own)
    assert [name for name in figure.sources if f"explorer.html#view=runs&figure={name}" not in page] == []
    notes = pages.sections_of(report)["Deviations and unknowns"]
    words = re.findall(r"\w+", re.sub(r"\(([^()\s]+)\)|\*\*What it shows\.?\*\*|`[^`]*`", "", notes))
    assert [word for word in words if word not in page] == []
    assert "![" not in page


def test_notes_fall_into_what_a_figure_shows_and_its_settings():
    assert pages.split_notes("**What it shows.** A *fall*.\n\nMore.\n\n**Unknown.** All.") == (
        "A *fall*.\n\nMore.",
        "**Unknown.** All.",
    )
    assert pages.split_notes("Adam at 1e-3.") == ("", "Adam at 1e-3.")


def test_an_effect_is_told_as_the_report_tells_it():
    told = {
        tuple(re.findall(r"\| \*\*(\S+)\*\*.*?\| [^|]* \| ([^|]*) \| \d+ \|", line))
        for line in (ROOT / "results/fig5/report.md").read_text().splitlines()
    }
    report = dict(found[0] for found in told if found)
    own = {row["id"]: pages.effect(row) for row in CLAIMS if row["figure"] == "fig5"}
    assert len(own) > 20
    assert own == {name: report[name] for name in own}
    assert pages.effect({"effect": "", "low": "", "high": "", "against": "> 1"}) == "–"


def test_the_statements_are_all_there_with_their_verdicts():
    page = pages.statements((ROOT / "results/REPORT.md").read_text(), PLACES)
    rows = re.findall(r"^\| (\d+) \| .* \| <span class=\"verdict \w+\">[^<]+</span> \|$", page, re.MULTILINE)
    assert rows == [str(number) for number in range(1, 27)]
    assert "Every claim and its verdict" not in page
    assert "figures/fig5.md" in page


def test_the_reference_has_what_the_library_offers():
    """Each by the module that defines it, so that it has one place."""
    import syre

    page = pages.api_page("index", ROOT)
    assert {name.rpartition(".")[2] for name in re.findall(r"^::: (\S+)$", page, re.MULTILINE)} == set(syre.__all__)
    assert pages.offered(ROOT, "syre.core")[:2] == ["syre.core.anchor.checksum", "syre.core.anchor.draw_anchors"]
    assert "syre.metrics.spectra.effective_rank" in pages.api_page("metrics", ROOT)
    every = [name for page in pages.API for name in re.findall(r"^::: (\S+)", pages.api_page(page, ROOT), re.MULTILINE)]
    assert len(every) == len(set(every)) > 80


def test_its_lock_has_hashes_and_names_no_index_and_no_torch():
    text = (ROOT / "requirements-site.lock").read_text()
    names = set(re.findall(r"^([a-z][\w.-]*)==", text, re.MULTILINE))
    assert {"mkdocs", "mkdocs-material", "mkdocstrings-python", "pillow"} <= names
    assert names & {"torch", "numpy", "pandas"} == set()
    assert "://" not in text
    assert text.count("--hash=sha256:") > len(names)


def test_every_figure_is_in_the_menu():
    menu = str(contents.nav(FIGURES, ["diagnose.md"]))
    assert [figure.name for figure in FIGURES if f"figures/{figure.name}.md" not in menu] == []
    assert "diagnose.md" in menu
