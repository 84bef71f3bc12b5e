"""The numbers of the explorer are those of the committed tables, and its names are those of the figures."""

import csv
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from experiments.analysis import arms, results
from scripts.site import contents, tables

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
SWEPT = sorted((path.parent.name for path in RESULTS.glob("*/runs.csv")), key=tables.in_order)
ADDED = tables.later(ROOT / "configs")


def parsed(script: str) -> object:
    return json.loads(script.partition(" = ")[2].removesuffix(";\n"))


def as_shown(cell: object) -> float | str | None:
    """A cell of pandas, where a column with a word in it is one of words."""
    if cell is None or cell != cell:
        return None
    try:
        return float(str(cell))
    except ValueError:
        return str(cell).lower() if isinstance(cell, bool | np.bool_) else str(cell)


@pytest.mark.parametrize("name", SWEPT)
def test_a_sweep_has_the_runs_the_settings_and_the_last_values_that_the_figures_are_drawn_from(name):
    """Against pandas, and the way in which claims are judged."""
    sweep = parsed(tables.script("x", tables.sweep(RESULTS / name, ADDED)))
    loaded = results.load(RESULTS, name)
    runs = loaded.runs
    assert sweep["ids"] == list(runs["id"])
    assert sweep["seeds"] == list(runs["seed"])
    assert (sweep["status"], sweep["scale"]) == (list(runs["status"]), loaded.scale)
    assert sweep["seconds"] == list(runs["seconds"])
    for setting, found in sweep["settings"].items():
        shown = [found["values"][place] for place in found["of"]]
        assert [as_shown(cell) for cell in runs[setting]] == shown, setting
    for metric, shown in sweep["metrics"].items():
        truth = loaded.final(metric)[metric]
        assert [None if math.isnan(cell) else cell for cell in truth] == shown, metric
    tested = set(loaded.metrics[loaded.metrics["split"] == "test"]["metric"])
    assert {metric.split("/")[0] for metric in tested - sweep["metrics"].keys()} <= {"pixel", "original"}


def test_control_a_value_that_was_changed_and_a_run_that_failed_show(tmp_path):
    for table in ("runs.csv", "metrics.csv"):
        (tmp_path / table).write_text((RESULTS / "ant" / table).read_text())
    before = tables.sweep(tmp_path, ADDED)
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    place = max(
        k for k, line in enumerate(lines) if line.startswith(before["ids"][0]) and ",test,return/final," in line
    )
    lines[place] = lines[place].rpartition(",")[0] + ",12345.5"
    (tmp_path / "metrics.csv").write_text("\n".join(lines) + "\n")
    after = tables.sweep(tmp_path, ADDED)
    assert after["metrics"]["return/final"] == [12345.5, *before["metrics"]["return/final"][1:]]
    (tmp_path / "runs.csv").write_text((tmp_path / "runs.csv").read_text().replace(",done,", ",failed,", 1))
    assert tables.sweep(tmp_path, ADDED)["metrics"]["return/final"] == [None, *before["metrics"]["return/final"][1:]]


def test_a_value_that_is_no_number_is_null_and_the_last_step_counts(tmp_path):
    (tmp_path / "runs.csv").write_text(
        "id,scale,status,seed,a.b,seconds\nx,cpu,done,0,1,2\ny,cpu,done,1,,2\nz,cpu,done,0,true,2\n"
    )
    rows = [
        "x,10,test,loss,3",
        "x,9,test,loss,4",
        "x,11,train,loss,5",
        "y,1,test,loss,7",
        "y,2,test,loss,nan",
        "z,1,test,loss,-inf",
    ]
    (tmp_path / "metrics.csv").write_text("id,step,split,metric,value\n" + "\n".join(rows) + "\n")
    sweep = parsed(tables.script("x", tables.sweep(tmp_path, {})))
    assert sweep["metrics"] == {"loss": [3, None, None]}
    assert sweep["settings"] == {"a.b": {"values": [None, 1, "true"], "of": [1, 0, 2]}}


def test_settings_that_came_later_are_those_of_the_results():
    assert [(group, member, dict(values)) for (group, member), values in ADDED.items()] == [
        (group, member, dict(values)) for group, member, values in results.later(ROOT / "configs")
    ]


def test_the_explorer_begins_with_every_claim_as_it_stands_in_claims_csv():
    claims = tables.claims(RESULTS)
    index = contents.index(tables.figures(RESULTS), claims, SWEPT, {})
    with (RESULTS / "claims.csv").open(newline="") as file:
        truth = [[row[column] for column in contents.COLUMNS] for row in csv.DictReader(file)]
    shown = [[claim[column] for column in contents.COLUMNS] for claim in index["claims"]]
    assert len(truth) > 700
    assert Counter(map(tuple, truth)) == Counter(map(tuple, shown))
    assert list(index["sweeps"]) == SWEPT


def test_the_sigmas_and_gammas_of_a_claim_are_read_from_its_sentence():
    text = "syre (best σ, γ = 0.001) beats syre (σ = 1e-2, γ = 3) for every γ ≥ 0.01; σ = 0.3."
    assert (tables.sigmas(text), tables.gammas(text)) == (["best", "0.01", "0.3"], ["0.001", "3"])
    assert (tables.sigmas("No σ here."), tables.gammas("")) == ([], [])


def test_figures_stand_in_the_order_of_the_paper():
    names = [
        "readings",
        "front",
        "table10",
        "theory",
        "table2",
        "fig10",
        "fig2_teacher",
        "fig3b",
        "fig2",
        "fig3",
        "ablation",
    ]
    ordered = [
        "front",
        "fig2",
        "fig2_teacher",
        "fig3",
        "fig3b",
        "fig10",
        "table2",
        "table10",
        "theory",
        "ablation",
        "readings",
    ]
    assert sorted(names, key=tables.in_order) == ordered
    assert [tables.label(name) for name in ("fig3b", "fig2_teacher", "table1_head", "sigma_map")] == [
        *("Figure 3b", "Figure 2 (teacher)", "Table 1 (head)", "Sigma map")
    ]


def test_arms_have_the_looks_of_the_figures():
    found = tables.looks((ROOT / "experiments/analysis/arms.py").read_text())
    assert found == {name: {"label": look.label, "color": look.color} for name, look in arms.LOOKS.items()}
