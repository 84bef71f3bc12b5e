"""The time at which equal units come apart, and what is claimed of it, on curves made up for it."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from experiments.analysis.claims import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, evaluate
from experiments.analysis.results import Results
from experiments.figures import cloned
from experiments.figures.cloned import CLAIMS, LEAVE, NOISE, STAY, SYRE

SETTINGS = {"regularizer.weight_decay": (1e-4, 1e-3), "regularizer.sigma": (0.01, 1)}
SEEDS = range(5)


def made(time):
    """Results in which the units of `time(name, gamma * sigma)` come apart at that step, or never (None)."""
    runs, metrics, count = [], [], itertools.count()
    arms = [{k: v for k, v in arm.items() if not isinstance(v, tuple)} for _, arm in (*STAY.values(), *LEAVE.values())]
    arms = [arm for arm in arms if arm["regularizer.name"] != "syre"]
    syres = [dict(zip(SETTINGS, both, strict=True)) for both in itertools.product(*SETTINGS.values())]
    arms += [
        {"regularizer.name": "syre", "regularizer.start": "keep", "regularizer.unit": "relative", **s} for s in syres
    ]
    for arm, seed in itertools.product(arms, SEEDS):
        run = f"{next(count):012x}"
        runs.append({"id": run, "scale": "cpu", "status": "done", "seed": seed, "regularizer.scope": "all", **arm})
        at = time(arm["regularizer.name"], arm.get("regularizer.weight_decay", 0) * arm.get("regularizer.sigma", 0))
        for step in range(0, 1001, 50):
            value = 0.0 if at is None or step < at else 0.5 + 0.001 * seed
            metrics.append({"id": run, "step": step, "split": "test", "metric": "distance", "value": value})
    return Results(experiment="cloned", scale="cpu", runs=pd.DataFrame(runs), metrics=pd.DataFrame(metrics))


def as_thought(name, product):
    """What is claimed: syre the sooner the larger gamma sigma, the other three later, the rest never."""
    if name == "syre":
        return 200 if product < 1e-4 else 100
    return 600 if name in {"noisy", "dropout", "continual_backprop"} else None


def test_the_time_of_escape_is_the_first_step_at_which_they_are_apart():
    results = made(as_thought)
    assert 10 ** cloned.escape(results, NOISE)["steps"].to_numpy() == pytest.approx(600)
    assert 10 ** cloned.escape(results, SYRE)["steps"].to_numpy() == pytest.approx(200)
    never = cloned.escape(results, STAY["redo"][1])
    assert not never["apart"].any()
    assert 10 ** never["steps"].to_numpy() == pytest.approx(1000)


def test_claims_hold_where_it_is_as_they_say_and_fail_where_it_is_not():
    verdicts = {claim.id: evaluate(claim, made(as_thought)).verdict for claim in CLAIMS}
    assert set(verdicts.values()) == {REPRODUCED}
    otherwise = made(lambda name, product: None if as_thought(name, product) else 50)
    other = {claim.id: evaluate(claim, otherwise).verdict for claim in CLAIMS}
    assert set(other.values()) == {NOT_REPRODUCED}


def test_what_was_learnt_names_the_quick_first_and_those_that_never_part_them():
    said = cloned.learnt(made(as_thought))
    assert said.index("syre (σ = 0.01, γ = 0.001) after 200") < said.index("dropout (rate 0.1) after 600")
    assert "They stay equal without any regularizer, with weight decay" in said
    slow = cloned.learnt(made(lambda name, product: 50 if name == "redo" else None))
    assert "syre (σ = 0.01, γ = 0.001) not within 1,000" in slow
    assert "end apart" not in said
    assert slow.endswith("They end apart also with ReDo (threshold 0.1, every 100 steps).")


def test_in_how_many_seeds_they_come_apart_is_said_where_it_is_not_in_all():
    results = made(as_thought)
    late = results.runs[(results.runs["regularizer.name"] == "dropout") & (results.runs["seed"] == SEEDS[0])]["id"]
    metrics = results.metrics.assign(value=results.metrics["value"].where(~results.metrics["id"].isin(late), 0.0))
    said = cloned.learnt(replace(results, metrics=metrics))
    assert f"dropout (rate 0.1) after 600 ({len(SEEDS) - 1} of {len(SEEDS)} seeds)" in said
    assert "seeds)" not in cloned.learnt(results)


def test_a_run_that_failed_has_no_time_of_escape():
    results = made(as_thought)
    lost = results.runs["regularizer.name"].eq("noisy") & results.runs["seed"].eq(SEEDS[0])
    results = replace(results, runs=results.runs.assign(status=np.where(lost, "nan", "done")))
    times = cloned.escape(results, NOISE).set_index("seed")
    assert times["steps"].isna().tolist() == [seed == SEEDS[0] for seed in times.index]
    assert not times.loc[SEEDS[0], "apart"]
    verdicts = {claim.id: evaluate(claim, results).verdict for claim in CLAIMS}
    assert verdicts["faster-noise"] == INCONCLUSIVE


def test_equal_products_are_no_trend_however_their_factors_are_rounded():
    """0.1 * 0.003 and 0.01 * 0.03 differ in their last digit: that is no larger gamma sigma."""
    assert 0.1 * 0.003 != 0.01 * 0.03
    pairs = [(0.1, 0.003, 300), (0.01, 0.03, 200), (0.01, 0.1, 100), (0.1, 0.1, 50)]
    runs = pd.DataFrame(
        [{"id": f"{k:012x}", "scale": "cpu", "status": "done", "seed": 0, "regularizer.name": "syre",
          "regularizer.start": "keep", "regularizer.unit": "relative", "regularizer.scope": "all",
          "regularizer.weight_decay": gamma, "regularizer.sigma": sigma} for k, (gamma, sigma, _) in enumerate(pairs)]
    )  # fmt: skip
    rows = [
        {"id": f"{k:012x}", "step": step, "split": "test", "metric": "distance", "value": 0.5 * (step >= time)}
        for k, (*_, time) in enumerate(pairs)
        for step in range(0, 401, 50)
    ]
    results = Results(experiment="cloned", scale="cpu", runs=runs, metrics=pd.DataFrame(rows))
    claim = next(claim for claim in CLAIMS if claim.id == "sooner")
    assert claim.samples(results).tolist() == [1.0]


def test_it_is_drawn():
    assert len(cloned.draw(made(as_thought)).axes) == 2
