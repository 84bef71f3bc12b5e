"""The paper's tables: report.md has the numbers of the runs beside the paper's, and the picture has both."""

import pandas as pd
import pytest

from experiments.analysis import tables
from experiments.analysis.arms import GAMMA, NAME, SIGMA, START
from experiments.analysis.results import Results
from experiments.figures import table1, table2, table3


def results(runs, metrics):
    """Results of runs, each with its metrics at the end."""
    ids = [f"{k:012x}" for k in range(len(runs))]
    rows = [
        {"id": own, "step": 1, "split": "test", "metric": metric, "value": value}
        for own, values in zip(ids, metrics, strict=True)
        for metric, value in values.items()
    ]
    frame = pd.DataFrame(runs).assign(id=ids, status="done", device="cpu")
    return Results(experiment="table", scale="cpu", runs=frame, metrics=pd.DataFrame(rows))


def lines(text):
    """The cells of a Markdown table, less its header, and what is said below it."""
    table, _, said = text.partition("\n\n")
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]], said


@pytest.fixture
def simclr():
    arms = [("vanilla", None, None, None), ("weight_decay", None, 1e-4, None), ("syre", 0.01, 1e-4, "shift")]
    arms += [("weight_decay", None, 1e-2, None)]
    runs = [
        {NAME: name, SIGMA: sigma, GAMMA: gamma, START: start, "model.stem": "imagenet", "seed": seed}
        for name, sigma, gamma, start in arms
        for seed in (0, 1)
    ]
    metrics = [
        {table1.LOW: 0.1 * k, table1.PENULTIMATE: 0.5, table1.LAST: 0.2 + 0.002 * (k % 2)} for k in range(len(runs))
    ]
    return results(runs, metrics)


def test_table_1_has_the_means_of_its_runs_and_the_papers_numbers(simclr):
    rows, said = lines(table1.paper_table(simclr))
    spread = "20.1 [18.8, 21.4]"  # 20 and 20.2: 20.1 ± 12.706 · 0.1
    assert rows == [
        ["vanilla", "0", "5.0 [-58.5, 68.5]", "", "50.0", "", spread, ""],
        ["weight decay", "0.0001", "25.0 [-38.5, 88.5]", "70", "50.0", "46.8", spread, "22.2"],
        ["syre, σ = 0.01", "0.0001", "45.0 [-18.5, 108.5]", "0", "50.0", "~46.8", spread, "32.5"],
        ["weight decay", "0.01", "65.0 [1.5, 128.5]", "", "50.0", "", spread, ""],
    ]
    assert "not known" in said


@pytest.fixture
def steps():
    """A ViT at batches of 128 and 64, two repetitions each."""
    runs = [
        {table2.NETWORK: "vit", table2.WIDTH: 64, table2.BATCH: batch, "seed": seed}
        for batch in (64, 128)
        for seed in (0, 1)
    ]
    metrics = [
        {
            **{"ms/plain": 10.0, "ms/attach": 11.0, "ms/parametrize": 12.0, "epoch/plain": 3.25},
            **{"time/attach": 1.1 + 0.02 * run["seed"], "time/parametrize": 1.2, "parameters": 4.0},
            **{"MB/plain": 100.0, "MB/attach": 104.0, "MB/parametrize": 108.0},
            **{"memory/attach": 1.04, "memory/parametrize": 1.08, "copies/attach": 1.0, "copies/parametrize": 2.0},
        }
        for run in runs
    ]
    return results(runs, metrics)


def test_table_2_has_a_line_each_network_and_batch_size(steps):
    rows, said = lines(table2.paper_table(steps))
    ours = ["10.0", "11.0", "12.0", "3.25", "1.110 [0.983, 1.237]", "1.200", "1.02 to 1.20"]
    assert rows == [["ViT, 64", batch, *ours] for batch in ("128", "64")]
    assert "on cpu" in said


def test_table_3_has_the_papers_lines_too_where_ours_are_none(steps):
    rows, _ = lines(table3.paper_table(steps))
    ours = ["4.00", "100.0", "104.0", "108.0", "1.040", "1.080", "1.00", "2.00"]
    assert [row for row in rows if row[0].startswith("ViT")] == [
        ["ViT", "512", *["–"] * 8, "4216 → 4218", "1.000"],
        ["ViT", "256", *["–"] * 8, "2482 → 2484", "1.001"],
        ["ViT, 64", "128", *ours, "1574 → 1574", "1.000"],
        ["ViT, 64", "64", *ours, "–", "–"],
    ]
    assert [row[1] for row in rows if row[0] == "MLP"] == ["512", "256", "128"]


def test_an_estimate_has_an_interval_where_seeds_differ():
    values = pd.Series([0.1, 0.2, 0.3, float("nan")])
    assert tables.estimate(values, times=100) == "20.0 [-4.8, 44.8]"
    assert tables.estimate(values[:1], 2) == "0.10"
    assert tables.estimate(pd.Series([0.25, 0.25]), 2) == "0.25"
    assert tables.estimate(pd.Series([-0.2, 0.5, 0.4]), 0) == "0 [-1, 1]"
    assert tables.estimate(pd.Series([0.9, 1.1, 0.8]) - 1.0, 0) == "0 [0, 0]"  # no minus zero
    assert tables.estimate(values[3:]) == "–"


def test_the_picture_of_table_1_has_the_papers_numbers_at_their_rows(simclr):
    for name, value in {
        "low_rankness/0.0001": 0.5,
        "low_rankness/0.01": 0.5,
        "eigenvalue/1": 2.0,
        "eigenvalue/9": 1.0,
    }.items():
        more = simclr.runs[["id"]].assign(step=1, split="test", metric=name, value=value)
        simclr = Results(experiment="table1", scale="cpu", runs=simclr.runs, metrics=pd.concat([simclr.metrics, more]))
    low, _, last, *_ = table1.draw(simclr).axes
    for ax, expected in ((low, [(70, 1), (0, 2)]), (last, [(22.2, 1), (32.5, 2)])):
        theirs = [line for line in ax.lines if line.get_label() == "the paper's"]
        assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in theirs] == expected
    assert [label.get_text() for label in low.get_yticklabels()][2] == "syre, σ = 0.01; γ = 0.0001"
