"""The committed figures: claims that can fail, pictures and reports that follow from the tables alone."""

import csv
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from matplotlib.colors import to_hex
from matplotlib.container import Container
from matplotlib.lines import Line2D

from experiments.analysis import arms, pages, plotting
from experiments.analysis.claims import REPRODUCED, Superiority, evaluate
from experiments.figures import table1

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "results"
FIGURES = pages.available(RESULTS)
# One process has both tests of a figure, and judges it once.
GROUPED = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in FIGURES]
DRAWN = {name for name in FIGURES if name not in pages.sources(pages.module_of(name), name)}  # from runs of others

SIGMAS = (0.001, 0.01, 0.1, 0.3, 1, 3, 10)
TRAINING = {"fig6b", "gpt", "rivals", "cloned"}  # claims are committed before results: these have few runs yet, or none


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
    assert len(judged(name).module.NOTES) > 200


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
    own = arms.SAME_START if name != "table1" else table1.SAME_START  # the one exception
    standard = {look.label: look for look in (*arms.LOOKS.values(), *(arms.look("syre", s) for s in SIGMAS))}
    for ax in figures[0].axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            line = handle[0] if isinstance(handle, Container) else handle
            look = own if re.search("start kept", label) else standard.get(label)
            if look is not None and isinstance(line, Line2D):
                assert to_hex(line.get_color()) == look.color.lower(), label
                assert line.get_marker() in (look.marker, "None"), label  # a training curve needs no markers


def test_control_the_exception_is_one() -> None:
    assert table1.SAME_START.color != arms.SAME_START.color
    assert table1.SAME_START.color not in {look.color for look in arms.LOOKS.values() if look.label.startswith("syre")}
