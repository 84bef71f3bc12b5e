"""The choice on some seeds and the judgement on others, on runs made up for it; and that the judged are the chosen."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from experiments.analysis import plotting
from experiments.analysis.claims import INCONCLUSIVE, NOT_REPRODUCED, NOT_TESTED, REPRODUCED, evaluate
from experiments.analysis.results import Results, ResultsError, load
from experiments.figures import rivals
from experiments.figures.rivals import CLAIMS, JUDGING, METHODS, NAME, STREAM, STREAMS, TUNING
from tests.experiments.conftest import CONFIGS

RESULTS = CONFIGS.parent / "results"
GAMMAS = (0.1, 0.2, 0.3)
GOOD = {"syre": 0.9, "noisy": 0.95}  # accuracy at the best settings; of all others 0.7


def made(accuracy, seeds=(*TUNING, *JUDGING), status=lambda method, gamma, seed: "done"):
    """Results with `accuracy(method, gamma, seed)` at the end of each of ten tasks, and less at the first five."""
    runs, metrics, count = [], [], itertools.count()
    for stream, (method, arm), gamma, seed in itertools.product(STREAMS, METHODS.items(), GAMMAS, seeds):
        run = f"{next(count):012x}"
        settings = {"optim.lr": 0.01, "regularizer.weight_decay": gamma, "model.norm": "none", **arm}
        ended = {"id": run, "scale": "cpu", "status": status(method, gamma, seed), "seed": seed, "seconds": 9.0}
        runs.append({**ended, STREAM: stream, **settings})
        for task in range(11):
            values = {"accuracy": accuracy(method, gamma, seed) - 0.5 * (task < 6), "rank": 100.0, "dead": 3.0}
            at = {"id": run, "step": 157 * task, "split": "test"}
            metrics.extend({**at, "metric": name, "value": value} for name, value in values.items())
    return Results(experiment="rivals", scale="cpu", runs=pd.DataFrame(runs), metrics=pd.DataFrame(metrics))


def best_in_the_middle(method, gamma, seed):
    noise = 0.001 * np.random.default_rng([seed, list(METHODS).index(method)]).normal()
    return GOOD.get(method, 0.7) - abs(gamma - 0.2) + noise


def test_the_settings_of_a_method_are_those_with_the_best_last_tasks_on_the_seeds_that_choose():
    best = rivals.chosen(rivals.ends(made(best_in_the_middle)))
    assert best == dict.fromkeys(itertools.product(STREAMS, METHODS), "γ = 0.2")

    def another_on_judging_seeds(method, gamma, seed):
        return best_in_the_middle(method, gamma if seed in TUNING else 0.4 - gamma, seed)

    assert rivals.chosen(rivals.ends(made(another_on_judging_seeds))) == best


def test_a_run_that_went_nan_rules_its_settings_out():
    results = made(best_in_the_middle, status=lambda m, g, s: "nan" if (g, s) == (0.2, TUNING[1]) else "done")
    assert "γ = 0.2" not in rivals.chosen(rivals.ends(results)).values()


def test_only_seeds_that_nothing_was_chosen_on_are_judged():
    rows = rivals.judged(made(best_in_the_middle))
    assert set(rows["seed"]) == set(JUDGING)
    assert set(rows["settings"]) == {"γ = 0.2"}
    assert len(rows) == len(STREAMS) * len(METHODS) * len(JUDGING)
    assert rows.loc[rows["method"] == "syre", "accuracy"].mean() == pytest.approx(0.9, abs=2e-3)
    assert not set(TUNING) & set(JUDGING)


def test_claims_follow_the_accuracies_and_wait_for_the_judging_seeds():
    verdicts = {c.id: evaluate(c, made(best_in_the_middle)).verdict for c in CLAIMS}
    assert verdicts["syre-redo-permuted"] == verdicts["syre-none-random"] == REPRODUCED
    assert verdicts["syre-noisy-permuted"] == NOT_REPRODUCED
    assert verdicts["units-permuted"] == NOT_REPRODUCED
    assert all(evaluate(c, made(best_in_the_middle, seeds=TUNING)).verdict == NOT_TESTED for c in CLAIMS)
    lost = made(best_in_the_middle, status=lambda m, g, s: "nan" if (m, s) == ("redo", JUDGING[0]) else "done")
    assert {c.id: evaluate(c, lost).verdict for c in CLAIMS}["syre-redo-permuted"] == INCONCLUSIVE


def test_the_table_of_the_report_has_every_method_the_best_first():
    text = rivals.further(made(best_in_the_middle))
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    names = [row.split(" | ")[0].removeprefix("| ") for row in rows]
    assert [name for name in names if name in rivals.WORDS.values()][:2] == ["noise in the gradient", "syre"]
    assert sum(name in rivals.WORDS.values() for name in names) == len(STREAMS) * len(METHODS)
    assert rivals.further(made(best_in_the_middle, seeds=TUNING)) == ""


def test_a_stream_in_training_is_said_to_be_and_its_learning_rate_is_no_setting_of_the_other():
    results = made(best_in_the_middle)
    other = results.runs[STREAM] == "random_labels"
    runs = results.runs.assign(**{"optim.lr": np.where(other, 0.004, 0.01)})
    text = rivals.further(replace(results, runs=runs[~other | (runs["seed"] == TUNING[0])]))
    assert f"random labels {len(METHODS) * len(GAMMAS)} of the 384 runs that choose have ended; nothing" in text
    assert "| γ = 0.2 |" in text
    assert "lr =" not in text


def test_a_best_number_at_the_end_of_those_that_were_tried_is_said():
    assert rivals.further(made(best_in_the_middle)).count("so that others may do better, of none.") == 2

    def lowest(method, gamma, seed):
        return best_in_the_middle(method, gamma + 0.1 * (method == "redo"), seed)

    assert rivals.further(made(lowest)).count("so that others may do better, of ReDo (γ = 0.1).") == 2


def test_of_settings_that_tie_one_in_the_middle_is_no_end_and_the_tie_is_said():
    def tied(method, gamma, seed):
        return 1.0 if method == "redo" and gamma < 0.25 else best_in_the_middle(method, gamma, seed)

    text = rivals.further(made(tied))
    assert text.count("so that others may do better, of none. Several settings are best") == 2
    assert text.count("and the first was taken, of ReDo (2 of 3).") == 2
    assert "Several settings" not in rivals.further(made(best_in_the_middle))


def test_all_that_are_first_are_named():
    def two(method, gamma, seed):
        return 0.995 if method in {"noisy", "redo"} else best_in_the_middle(method, gamma, seed)

    assert rivals.learnt(made(two)).count("behind ReDo and noise in the gradient (0.995), where 2 of all 16 ") == 2
    assert rivals.finding(made(two)).finding.count("(0.900; 2 others 0.995)") == 2


def test_a_method_is_not_judged_by_the_seeds_that_it_survived():
    lost = made(best_in_the_middle, status=lambda m, g, s: "nan" if (m, s) == ("noisy", JUDGING[0]) else "done")
    assert "syre is number 1 of 13" in rivals.learnt(lost)
    assert "beaten by none" in rivals.learnt(lost)
    row = next(line for line in rivals.further(lost).splitlines() if line.startswith("| noise in the gradient"))
    assert row.endswith("| no |")


def test_what_was_learnt_says_where_syre_is_beaten():
    text = rivals.learnt(made(best_in_the_middle))
    assert text.count("syre is number 2 of 13") == 2
    assert text.count("behind noise in the gradient (0.95") == 2
    assert text.count("after Holm's correction it is beaten by noise in the gradient, and beats ") == 2
    assert all(text.count(words) == 2 for words in list(rivals.BRIEF.values())[:11])
    assert rivals.learnt(made(best_in_the_middle, seeds=TUNING)) == ""
    equal = rivals.learnt(made(lambda method, gamma, seed: 0.7 - gamma + 0.01 * (len(method) * seed % 7)))
    assert equal.count("beaten by none, and beats none") == 2  # the control: nothing but noise


def test_the_finding_has_the_place_of_syre_and_its_distance_from_the_best_of_the_others():
    found = rivals.finding(made(best_in_the_middle))
    assert found.finding.count("number 2 of 13 on ") == 2
    assert found.finding.count("(0.900; noise in the gradient 0.95") == 2
    assert found.ours.endswith("] points against the best of the others")
    assert found.ours.count("[") == 2
    first = rivals.finding(
        made(lambda m, g, s: best_in_the_middle("syre" if m == "noisy" else m, g, s) - (m == "noisy"))
    )
    assert first.finding.count("number 1 of 13 on ") == 2
    for lacking in (made(best_in_the_middle, seeds=TUNING), without(made(best_in_the_middle), "redo")):
        with pytest.raises(ResultsError):
            rivals.finding(lacking)


def without(results, method):
    return replace(results, runs=results.runs[results.runs[NAME] != method])


@pytest.mark.parametrize("seeds", [TUNING, (*TUNING, *JUDGING)], ids=["not yet judged", "judged"])
def test_it_is_drawn_before_and_after_the_judgement(seeds, tmp_path):
    figure = rivals.draw(made(best_in_the_middle, seeds=seeds))
    assert len(figure.axes) == 2 * 3
    assert all(plotting.files(figure, tmp_path).values())


@pytest.mark.skipif(not (RESULTS / "rivals").exists(), reason="it has not been trained")
def test_the_committed_judged_runs_are_of_the_settings_that_the_others_chose():
    runs = rivals.ends(load(RESULTS, "rivals"))
    best, judged = rivals.chosen(runs), runs[runs["seed"].isin(JUDGING)]
    own = set(zip(judged[STREAM], judged["method"], judged["settings"], strict=True))
    assert own <= {(*key, settings) for key, settings in best.items()}
    assert (runs["method"] != "").all()
    tuning = runs[runs["seed"].isin(TUNING) & runs[STREAM].isin(judged[STREAM])]  # another stream may be in training
    assert set(tuning.groupby([STREAM, "method"])["settings"].nunique()) == {rivals.BUDGET}
    assert set(tuning.groupby([STREAM, "method", "settings"])["seed"].nunique()) == {len(TUNING)}


def test_every_method_has_a_name_and_is_told_apart():
    assert METHODS.keys() == rivals.WORDS.keys()
    assert len({tuple(sorted(map(str, arm.items()))) for arm in METHODS.values()}) == len(METHODS)
    assert all(NAME in arm for arm in METHODS.values())
