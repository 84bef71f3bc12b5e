"""The GPT's claims and picture, on results made up for its runs: each claim can hold, fail, and be of its own text."""

import hashlib
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from experiments.analysis import pages, plotting
from experiments.analysis.claims import NOT_REPRODUCED, REPRODUCED, Equivalence, evaluate
from experiments.analysis.results import LATER, Results
from experiments.figures import gpt

STEPS = (0, 1500, 3000)
HALF = STEPS[1]
METRICS = {"loss": 1.5, "rank/effective": 60, "query_key/rank/effective": 20, "output_value/rank/effective": 20}


@pytest.fixture
def made(made_up):
    """Results of the experiment's own runs: `value(metric, second, arm)`, and a little noise of each run."""
    return lambda value: made_up("gpt", METRICS, STEPS, lambda metric, step, arm: value(metric, step > HALF, arm))


def test_there_are_two_texts_and_an_evaluation_at_the_end_of_the_first(composed):
    config = composed("experiment=gpt", "scale=cpu")
    assert config.data.tasks == 2
    assert config.train.evaluations % 2 == 0


def strength(arm) -> float:
    """0 without decay, 1, 2 and 3 at 0.01, 0.1 and 1."""
    return 3 + round(np.log10(gamma), 6) if (gamma := arm.get("weight_decay", 0)) else 0


def expected(metric, second, arm):
    """Decay lowers ranks, hurts the first text and helps the second; syre keeps ranks and helps both."""
    syre = arm["name"].startswith("syre")
    if metric != "loss":
        return METRICS[metric] - (0 if syre else 8 * strength(arm))
    change = 0.1 * strength(arm) if arm["name"] == "weight_decay" else 0.0
    change += 0.3 * (arm["name"] == "offset" and strength(arm) == 3)
    return METRICS["loss"] + (-change - 0.5 * syre if second else change)


def contrary(metric, second, arm):
    return 2 * METRICS[metric] - expected(metric, second, arm)


def verdicts(results: Results) -> dict[str, str]:
    return {claim.id: evaluate(claim, results).verdict for claim in gpt.CLAIMS}


def test_every_claim_but_the_other_side_holds_where_it_should_and_fails_on_the_contrary(made):
    found, opposite = verdicts(made(expected)), verdicts(made(contrary))
    assert len(found) == len(gpt.CLAIMS)  # ids of their own
    other_side = {"helps-0.1", "helps-1"}
    wrong = {name: verdict for name, verdict in found.items() if verdict != REPRODUCED}
    assert wrong == dict.fromkeys(other_side, NOT_REPRODUCED)
    unmoved = {claim.id for claim in gpt.CLAIMS if isinstance(claim, Equivalence)}  # syre with D is syre in both
    unmoved |= {f"no-decay-{g}" for g in gpt.STRONG}  # as good as no decay in both
    assert {name for name, verdict in opposite.items() if verdict == REPRODUCED} == unmoved | other_side


def test_no_reproduced_claim_survives_swapped_labels(made):
    results = made(expected)
    reproduced = [claim for claim in gpt.CLAIMS if evaluate(claim, results).verdict == REPRODUCED]
    assert len(reproduced) > 40
    assert not [c.id for c in reproduced if evaluate(replace(c, opposite=True), results).verdict == REPRODUCED]


def test_claims_about_plasticity_are_of_the_second_text_and_all_others_of_the_first(made):
    results = made(expected)
    rows = results.metrics
    ends = [claim.id for claim in gpt.CLAIMS if claim.id.startswith("plastic")]
    for keep, moved in ((rows["step"] <= HALF, ends), (rows["step"] > HALF, None)):
        scrambled = rows["value"].where(keep, 0.0)
        other = replace(results, metrics=rows.assign(value=scrambled))
        changed = {c.id for c in gpt.CLAIMS if evaluate(c, other).effect != evaluate(c, results).effect}
        assert changed == ({*moved} if moved else {c.id for c in gpt.CLAIMS} - {*ends})
    assert len(ends) == 3 + 2 * len(gpt.SYRES)


def test_the_picture_has_every_arm_of_the_experiment_and_no_other(made, tmp_path):
    results = made(expected)
    figure = gpt.draw(results)
    assert [ax.get_title() for ax in figure.axes[:5]] == [*gpt.PANELS.values()]
    for ax in figure.axes[:5]:
        labels = ax.get_legend_handles_labels()[1]
        assert labels == ["vanilla", *(own.label for own in gpt.LINES)]
    drawn = pd.concat([gpt.select(results.runs, **rows) for rows in (gpt.VANILLA, *gpt.LINES.values())])
    assert sorted(drawn["id"]) == sorted(results.runs["id"])
    files = plotting.files(figure, tmp_path)
    again = plotting.files(gpt.draw(results), tmp_path)
    digests = [[hashlib.sha256(content).hexdigest() for content in some.values()] for some in (files, again)]
    assert digests[0] == digests[1]


def test_control_the_settings_that_came_later_are_columns_of_the_results(made):
    columns = made(expected).runs.columns
    assert {"regularizer.scope", "regularizer.unit", "regularizer.gains"} <= {*columns}
    assert not [column for column in columns if LATER in column]


def test_of_a_few_runs_there_is_a_report_that_says_nothing_was_learnt_yet(made):
    whole = made(expected)
    few = replace(whole, runs=whole.runs.iloc[:2])
    report = pages.Report(name="gpt", module=gpt, results=few, verdicts=())
    assert (pages._learnt(report), pages._finding(report)["finding"]) == ("", "")
    assert pages._learnt(replace(report, results=whole))  # control


def test_the_notes_say_by_how_much_and_the_table_has_every_arm_once(made):
    said = " ".join(pages.notes(pages.Report(name="gpt", module=gpt, results=made(expected), verdicts=())).split())
    decayed = "nats on the first text and −0.300 [−0.300, −0.300] on the second"
    assert f"and the loss by 0.300 [0.300, 0.300] {decayed}; γ = 0.1" in re.sub(r"0\.(2\d\d|30\d)", "0.300", said)
    lines = gpt.further(made(expected)).splitlines()
    assert len(lines) == 2 + 25 + 2
    assert len({tuple(line.split("|")[1:3]) for line in lines[2:27]}) == 25
    assert "| weight decay | 1 | 1.800 | 1.200 | −4.0 | −4.0 | 36.0 |" in lines
    few = pages.Report(
        name="gpt", module=gpt, results=replace(made(expected), metrics=made(expected).metrics[:0]), verdicts=()
    )
    assert "What it shows" not in "".join(pages.notes(few))
    two = made(expected)
    two = replace(two, runs=two.runs[two.runs["seed"] < 2])  # no interval says anything yet
    assert "What it shows" not in gpt.notes(two)
    assert "**Settings.**" in gpt.notes(two)


def test_the_notes_tell_the_start_from_the_anchor_in_the_ranks_too(made):
    """Made up: at syre's start a rank is 7 more than at decay's, and the anchor adds 2 at γ = 1 only."""

    def apart(metric, second, own):
        rank = METRICS[metric]
        if "rank" in metric and "decay" not in own["name"]:
            larger = own["name"] == "offset" or (own.get("sigma") == 1 and own.get("start") != "keep")
            anchored = own["name"] == "syre" and own.get("sigma") == 1 and own["weight_decay"] == 1
            rank += 7 * larger + 2 * anchored
        return rank

    said = " ".join(gpt.notes(made(apart)).split())
    start, anchor, kept = re.search(
        r"W_Q\^T W_K changes by (.+?) by the start, (.+?) by the anchor, and (.+?) by the anchor from", said
    ).groups()
    assert (start, anchor, kept) == (
        "7.0 [7.0, 7.0] and 7.0 [7.0, 7.0]",
        "0.0 [0.0, 0.0] and 2.0 [2.0, 2.0]",
        "0.0 [0.0, 0.0] and 2.0 [2.0, 2.0]",
    )


def test_the_finding_says_which_way_decay_moves_the_losses(made):
    said = gpt.finding(made(expected)).finding
    assert "raises a GPT's loss on its first text (1.50 → 1.80) and lowers that on a second (1.50 → 1.20)" in said
    assert "syre at σ = 1 has 1.50 and 1.00" in said
    assert "of 32: 20.0, −4.0 and 20.0" in said  # made up: ranks below 0
    other = gpt.finding(made(contrary)).finding
    assert "lowers a GPT's loss on its first text" in other
    assert "raises that on a second" in other
    level = gpt.finding(made(lambda metric, second, arm: METRICS[metric])).finding
    assert level.count("does not clearly change") == 2


def test_what_was_learnt_says_where_syre_is_better_and_where_it_is_not(made):
    said = gpt.learnt(made(expected))
    assert "from 20.0 to −4.0 of 32, raises the loss of its first text and lowers that of a second" in said
    start = "better than that of decay to 0 from the same, larger start"
    first = f"on the first text is better than that of decay, not clearly other than that of no decay and {start};"
    assert first in said
    assert said.endswith(f"on the second it is better than that of decay, better than that of no decay and {start}.")
    assert "on the first text is worse than that of decay" in gpt.learnt(made(contrary))
    level = gpt.learnt(made(lambda metric, second, arm: METRICS[metric]))
    same = "not clearly other than"
    assert "and does not clearly change the loss of both texts;" in level
    assert f"on both texts is {same} that of decay, {same} that of no decay and {same} that of decay to 0" in level
