"""Numbers in the notes of a report: made of the results; a paragraph or an item that lacks one is left out."""

import numpy as np
import pandas as pd
import pytest

from experiments.analysis.arms import SIGMA, final, gain
from experiments.analysis.notes import MISSING, Numbers, written
from experiments.analysis.results import Results

NAME, SEEDS = "regularizer.name", range(3)
DECAY, SYRE = {NAME: "weight_decay"}, {NAME: "syre", SIGMA: 1}
ACCURACY = {("weight_decay", None): 0.2, ("syre", 0.1): 0.3, ("syre", 1): 0.8}


def made(accuracy=ACCURACY):
    """Runs whose accuracies lie 0.01 apart, a seed each."""
    runs, metrics = [], []
    for (name, sigma), value in accuracy.items():
        for seed in SEEDS:
            run = f"{len(runs):012x}"
            runs.append({"id": run, "scale": "cpu", "status": "done", "seed": seed, NAME: name, SIGMA: sigma})
            value_of_seed = value + 0.01 * (seed - 1)
            metrics.append({"id": run, "step": 9, "split": "test", "metric": "accuracy", "value": value_of_seed})
    return Results(experiment="made", scale="cpu", runs=pd.DataFrame(runs), metrics=pd.DataFrame(metrics))


def test_numbers_are_those_of_the_results():
    say = Numbers(made())
    assert say.final("accuracy", 2)(DECAY) == "0.20"
    assert say.final("accuracy", times=100)(SYRE) == "80"
    assert say.interval(final("accuracy", SYRE), 2) == "0.80 [0.78, 0.82]"  # 0.01 / sqrt(3) times Student's 4.303
    assert say.mean(gain("accuracy", SYRE, DECAY), times=100) == "60"
    assert say.span([final("accuracy", DECAY), final("accuracy", SYRE)], 1) == "0.2 to 0.8"
    assert say.count(final("accuracy", SYRE), above=0.795) == "2 of 3"
    assert say.count(final("accuracy", SYRE), above=0.1) == "all 3"
    assert say.count(final("accuracy", SYRE), below=0.1) == "none of 3"
    assert Numbers(made(ACCURACY | {("syre", 1): 0.5})).final("accuracy", 2)(SYRE) == "0.50", "the control"


def test_the_best_sigma_is_counted_over_seeds():
    assert Numbers(made()).best("accuracy", {NAME: "syre", "by": "accuracy"}) == "1 for every seed"
    close = made(ACCURACY | {("syre", 0.1): 0.8})  # where sigma 0.1 is better on the first seed, and 1 on the last
    rows = close.metrics["id"].isin(close.runs.loc[close.runs[SIGMA] == 0.1, "id"])
    close.metrics.loc[rows, "value"] = [0.85, 0.80, 0.75]
    assert Numbers(close).best("accuracy", {NAME: "syre"}) == "0.1 for 2 seeds and 1 for 1 seed"


@pytest.mark.parametrize(
    "told",
    [
        lambda say: say.final("accuracy")({NAME: "dropout"}),
        lambda say: say.final("accuracy")({"no.column": 1}),
        lambda say: say.interval(final("accuracy", {NAME: "dropout"})),
        lambda say: say.span([final("accuracy", DECAY), final("accuracy", {NAME: "dropout"})]),
        lambda say: say.count(final("accuracy", {NAME: "dropout"}), below=1),
        lambda say: say.best("accuracy", {NAME: "dropout"}),
        lambda say: say.mean(lambda results: results.by_seed("accuracy", SYRE) * np.nan),
        lambda say: say.count(lambda results: results.by_seed("accuracy", SYRE) * np.nan, below=1),
        lambda say: say.final("no metric")(SYRE),
    ],
)
def test_a_number_that_is_not_there_is_missing_and_any_other_error_is_not_hidden(told):
    assert told(Numbers(made())) == MISSING
    with pytest.raises(ZeroDivisionError):
        Numbers(made()).told(lambda results: str(1 / 0))


def test_a_paragraph_or_an_item_of_a_list_without_its_number_is_left_out():
    there = "\nFirst, 1.\n\nNot printed:\n- one\n- two\n  lines\n\nLast.\n"
    assert written(there) == "First, 1.\n\nNot printed:\n- one\n- two\n  lines\n\nLast."
    assert written(there.replace("1", MISSING)) == "Not printed:\n- one\n- two\n  lines\n\nLast."
    assert written(there.replace("one", MISSING)) == "First, 1.\n\nNot printed:\n- two\n  lines\n\nLast."
    assert written(there.replace("lines", MISSING)) == "First, 1.\n\nNot printed:\n- one\n\nLast."


def test_paragraphs_are_filled_and_no_line_of_them_begins_as_an_item_does():
    words = " ".join(["word"] * 22)  # 109 characters
    filled = written(f"{words}\nlonger σ =\n1. And (k\n+ 1) lines")
    assert [len(line) <= 120 for line in filled.splitlines()] == [True, True]
    assert filled.splitlines()[1] == "= 1. And (k + 1) lines"
    table = "| a |\n| --- |\n| 1 |"
    assert written(table) == table
