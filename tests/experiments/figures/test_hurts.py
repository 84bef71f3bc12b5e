"""The cost of removing symmetries: each arm at its own best decay, on results made up for it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from experiments.analysis import plotting
from experiments.analysis.arms import SIGMA, VANILLA, decay, syre
from experiments.analysis.claims import REPRODUCED, evaluate
from experiments.analysis.results import Results
from experiments.figures import hurts
from experiments.figures.hurts import CLAIMS, DENSE, PLACES, cost, symmetric, tuned

GAMMAS, SEEDS = (0.01, 0.1, 1.0), range(10)
TASKS = {"sparse": ("linear_regression", 5), "dense": ("linear_regression", 0), "patients": ("diabetes", None),
         "student": ("teacher_student", None)}  # fmt: skip


def made(hurt, best=0.1, seeds=SEEDS):
    """Results of all arms: at `best` decay syre is worse than decay alone by `hurt(task, sigma)`, elsewhere by more."""
    rng, runs, metrics = np.random.default_rng(0), [], []
    arms = [("vanilla", None, None, None), ("weight_decay", None, None, None)]
    arms += [("syre", s, "shift", "relative") for s in hurts.RELATIVE]
    arms += [("syre", s, "keep", "relative") for s in (1, 3)]
    for task, (data, nonzero) in TASKS.items():
        for name, sigma, start, unit in arms + [("syre", s, "shift", "absolute") for s in hurts.ABSOLUTE]:
            if unit == "absolute" and task != "student":
                continue
            for seed in seeds:
                for gamma in (None,) if name == "vanilla" else GAMMAS:
                    reach = sigma * 10 if unit == "absolute" else sigma or 0
                    worse = 0.5 if gamma is None else hurt(task, reach) + 0.3 * abs(np.log10(gamma / best))
                    worse += rng.normal(0, 1e-3)
                    alive = 90 if name == "vanilla" or reach >= 1 else 10
                    run = f"{len(runs):012x}"
                    settings = {"regularizer.weight_decay": gamma, "regularizer.sigma": sigma}
                    settings |= {"regularizer.start": start, "regularizer.unit": unit, "regularizer.name": name}
                    scope = None if name == "vanilla" else "all"
                    settings |= {"regularizer.scope": scope, "regularizer.gains": 0.0 if sigma else None}
                    settings |= {"regularizer.hold": None, "data.name": data, "data.nonzero": nonzero}
                    runs.append({"id": run, "scale": "cpu", "status": "done", "seed": seed, "seconds": 1.0, **settings})
                    values = {"loss": 0.2 * (1 + worse), "rank": alive}
                    if task == "student":
                        values = {"loss": 1.0, "accuracy": 0.9 - worse, "symmetry/0.1": 100 - alive}
                    metrics += [
                        {"id": run, "step": 9, "split": "test", "metric": name, "value": value}
                        for name, value in values.items()
                    ]
    return Results(experiment="hurts", scale="cpu", runs=pd.DataFrame(runs), metrics=pd.DataFrame(metrics))


def with_sigma(task, sigma):
    return 0 if task == "dense" else min(0.2 * sigma**2, 2) if sigma >= 0.5 else 0.001 * sigma


HURT = made(with_sigma)
NONE = made(lambda task, sigma: 0.0)


def verdicts(results, opposite=False):
    return {claim.id: evaluate(replace(claim, opposite=opposite), results).verdict for claim in CLAIMS}


def test_where_it_hurts_all_claims_hold_and_none_of_them_on_swapped_labels():
    found = verdicts(HURT)
    assert {id for id, verdict in found.items() if verdict != REPRODUCED} == set()
    swapped = verdicts(HURT, opposite=True)
    assert REPRODUCED not in swapped.values()


def test_control_where_it_does_not_hurt_no_cost_is_claimed():
    found = {id for id, verdict in verdicts(NONE).items() if verdict == REPRODUCED}
    assert not [id for id in found if id.startswith(("worse", "rises", "sparsity"))]
    assert {f"cost-{key}-{s}" for key in PLACES for s in (0.01, 0.1, 0.3)} | {"cost-dense-1"} <= found


def test_each_arm_is_judged_at_the_decay_that_is_best_on_the_other_seeds():
    place = PLACES["sparse"]
    assert cost(HURT, place, syre(sigma=3)).tolist() == pytest.approx([1.8] * 10, abs=0.02)
    assert cost(HURT, PLACES["student"], syre(sigma=1)).tolist() == pytest.approx([0.2] * 10, abs=0.01)
    assert cost(HURT, DENSE, syre(sigma=3)).tolist() == pytest.approx([0] * 10, abs=0.02)
    assert cost(HURT, place, VANILLA).tolist() == pytest.approx([0.5] * 10, abs=0.02)
    assert symmetric(HURT, place, decay()).tolist() == [0.9] * 10
    assert symmetric(HURT, PLACES["student"], syre(sigma=1)).tolist() == [0.1] * 10
    lucky = HURT.runs[(HURT.runs["seed"] == 0) & (HURT.runs["regularizer.weight_decay"] == 1.0)]["id"]
    values = HURT.metrics["value"].where(~(HURT.metrics["id"].isin(lucky) & (HURT.metrics["metric"] == "loss")), 0.01)
    one = replace(HURT, metrics=HURT.metrics.assign(value=values))
    assert tuned(one, place, decay())[0] == pytest.approx(0.2, abs=1e-3)  # the others say 0.1, not what is best here


def test_it_draws_what_there_is():
    plotting.style()
    figure = hurts.draw(HURT)
    assert len(figure.axes) == 6
    line = {line.get_label(): line for line in figure.axes[0].get_lines()}["syre"]
    assert line.get_xdata().tolist() == list(hurts.RELATIVE)
    assert line.get_ydata()[-1] == pytest.approx(2.8, abs=0.02)
    student = {line.get_label(): line for line in figure.axes[2].get_lines()}
    assert student["syre, σ absolute"].get_ydata()[1] == pytest.approx(20, abs=0.5)
    fewer = replace(HURT, runs=HURT.runs[HURT.runs[SIGMA] != 0.001])  # as at smoke scale
    line = {line.get_label(): line for line in hurts.draw(fewer).axes[0].get_lines()}["syre"]
    assert line.get_xdata().tolist() == list(hurts.RELATIVE[1:])
