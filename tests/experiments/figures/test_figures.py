"""The committed figures: claims that can fail, pictures and reports that follow from the tables alone."""

import shutil
from functools import cache
from pathlib import Path

import pytest

from experiments import report
from experiments.analysis import pages
from experiments.analysis import report as redrawn
from experiments.analysis.claims import REPRODUCED, evaluate, swapped

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "results"
FIGURES = pages.available(RESULTS)
# One process has both tests of a figure, and judges it once.
GROUPED = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in FIGURES]
DRAWN = {name for name in FIGURES if pages.sources(pages.module_of(name), name) != (name,)}  # from runs of others

TRAINING = {"fig6b"}  # claims are committed before results: these train for days, and have none yet


@cache
def judged(name: str) -> pages.Report:
    return pages.judge(name, RESULTS)


def test_every_experiment_with_a_configuration_has_committed_results() -> None:
    assert {path.stem for path in (ROOT / "configs/experiment").glob("*.yaml")} == set(FIGURES) - DRAWN | TRAINING
    assert TRAINING.isdisjoint(FIGURES)  # control: the list is of those that train


@pytest.mark.parametrize("name", GROUPED)
def test_no_reproduced_claim_survives_swapped_labels(name: str) -> None:
    verdicts, results = judged(name).verdicts, judged(name).results
    reproduced = [verdict.claim for verdict in verdicts if verdict.verdict == REPRODUCED]
    assert reproduced, "a figure that reproduces nothing would make this test idle"
    assert not [c.id for c in reproduced if evaluate(swapped(c), results).verdict == REPRODUCED]


@pytest.mark.parametrize("name", GROUPED)
def test_claims_have_names_of_their_own_and_notes_are_written(name: str) -> None:
    ids = [verdict.claim.id for verdict in judged(name).verdicts]
    assert len(set(ids)) == len(ids)
    assert len(judged(name).module.NOTES) > 200


@pytest.mark.slow
def test_redrawing_committed_results_changes_nothing(tmp_path: Path) -> None:
    shutil.copytree(RESULTS, tmp_path / "results", ignore=shutil.ignore_patterns(redrawn.MEMORY))
    assert report.main(["--results", str(tmp_path / "results")]) == 0
    for path in RESULTS.rglob("*"):
        if path.is_file() and path.name != redrawn.MEMORY:
            assert (tmp_path / "results" / path.relative_to(RESULTS)).read_bytes() == path.read_bytes(), path.name
