"""Figures 6 and 6b: every seed is a line, the paper's curves are at the same axes, and each claim states its arms."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from experiments.analysis import plotting
from experiments.analysis.arms import NAME, SCOPE, SIGMA, START, UNIT, look
from experiments.analysis.results import Results, there
from experiments.figures import fig6, fig6b

LEVELS = (
    *(("vanilla", None, None), ("weight_decay", None, None)),
    *(("syre", sigma, "relative") for sigma in (0.01, 0.1, 1)),
    ("syre", 0.1, "absolute"),
)
NARROW = 256


def ants(seeds=(0, 1, 2), levels=LEVELS, steps=10_000_000, every=2_000_000, backends=("mujoco",)) -> Results:
    """Made-up curves over fifty records of every arm, none like another; an untrained ant has returns of -20,000."""
    rows = [
        {"data.backend": backend, NAME: name, SIGMA: sigma, UNIT: unit, "seed": seed}
        for backend in backends
        for name, sigma, unit in levels
        for seed in seeds
    ]
    runs = pd.DataFrame(rows).assign(id=[f"{k:012x}" for k in range(len(rows))], status="done", scale="cpu")
    runs = runs.assign(**{"model.hidden": f"[16, {NARROW}]", "data.change_every": every, "seconds": 3600.0})
    runs[START] = np.where(runs[SIGMA].fillna(0) < 1, "shift", "keep")
    runs[SCOPE], runs["optim.betas"] = np.where(runs[NAME] == "vanilla", None, "all"), "[0.9, 0.999]"
    at = np.linspace(steps / 50, steps, 50)
    rng = np.random.default_rng(0)
    curves = {"return": 1000 + 60 * np.arange(50.0), "rank/99": np.full(50, 200.0), "dead": np.arange(50.0)}
    curves["return"][0] = -20_000
    metrics = pd.concat(
        pd.DataFrame({"id": id, "step": at, "split": "test", "metric": metric, "value": value * rng.uniform(0.9, 1.1)})
        for id in runs["id"]
        for metric, value in curves.items()
    )
    return Results(experiment="fig6b", scale="cpu", runs=runs, metrics=metrics.reset_index(drop=True))


@pytest.fixture(autouse=True)
def _style():
    plotting.style()


def grid(figure, columns):
    return np.array(figure.axes[: 3 * columns]).reshape(3, columns)


def thin(ax):
    return [line for line in ax.lines if line.get_linewidth() == 0.7]


def changes(ax):
    return [line.get_xdata()[0] for line in ax.lines if line.get_color() == "0.8"]


def test_fig6b_has_a_line_each_seed_beside_the_papers_curves_at_the_same_axes():
    data = ants()
    drawn = grid(fig6b.draw(data), 2)
    for (ours, its), metric in zip(drawn, fig6b.PANELS, strict=True):
        assert len(thin(ours)) == 18
        share = 1 if metric == "return" else 100 / NARROW
        curves = data.metrics[data.metrics["metric"] == metric].groupby("id")["value"]
        wanted = sorted(tuple(np.round(share * values.to_numpy(), 6)) for _, values in curves)
        assert sorted(tuple(np.round(line.get_ydata(), 6)) for line in thin(ours)) == wanted
        assert not ours.collections  # no band
        assert changes(ours) == [2, 4, 6, 8, 10]
        if metric not in fig6b.PAPER:
            assert not its.axison
            continue
        assert (its.get_xlim(), its.get_ylim()) == (ours.get_xlim(), ours.get_ylim())
        assert changes(its) == [5, 10]
        points = {
            line.get_color(): dict(zip(*line.get_data(), strict=True))
            for line in its.lines
            if len(line.get_xdata()) > 2
        }
        expected = {look(name).color: points for name, points in fig6.PAPER[metric].items() if len(points) > 2}
        assert points == expected
    returns, ranks, dead = (row[0].get_ylim() for row in drawn)
    assert returns[0] == 0  # not -20,000
    assert returns[1] > 5200  # the paper's, too
    assert ranks[1] == 100
    assert dead[0] == 0


def test_a_return_that_stays_low_is_not_cut_off():
    data = ants()
    late = (
        data.metrics["metric"].eq("return") & data.metrics["id"].eq(data.runs["id"][0]) & data.metrics["step"].gt(5e6)
    )
    low = replace(data, metrics=data.metrics.assign(value=data.metrics["value"].mask(late, -700.0)))
    assert grid(fig6b.draw(low), 2)[0, 0].get_ylim()[0] == -700
    lower = replace(data, metrics=data.metrics.assign(value=data.metrics["value"].mask(late, -9000.0)))
    assert grid(fig6b.draw(lower), 2)[0, 0].get_ylim()[0] == fig6.FLOOR


def test_fig6b_names_each_arm_that_is_there_once_and_the_papers_syre():
    (legend,) = (ax.get_legend() for ax in fig6b.draw(ants(seeds=(0,), levels=LEVELS[:2])).axes if ax.get_legend())
    assert [text.get_text() for text in legend.get_texts()] == ["vanilla", "weight decay", "syre, the paper's σ"]
    (legend,) = (ax.get_legend() for ax in fig6b.draw(ants()).axes if ax.get_legend())
    assert len({text.get_text() for text in legend.get_texts()}) == 7


def test_fig6_has_the_ants_apart_and_the_paper_only_beside_runs_that_reach_where_its_arms_part():
    short = ants(levels=LEVELS[:3], steps=1_000_000, every=93_000, backends=("mujoco", "pybullet"))
    figure = fig6.draw(short)
    assert len(figure.axes) == 6
    assert [ax.get_title() for ax in figure.axes[:2]] == [
        *("MuJoCo, a change every 93,000 steps", "PyBullet, a change every 93,000 steps")
    ]
    assert all(len(thin(ax)) == 9 and not ax.collections and len(changes(ax)) == 10 for ax in figure.axes)
    long = grid(
        fig6.draw(ants(levels=LEVELS[:3], steps=25_000_000, every=5_000_000, backends=("mujoco", "pybullet"))), 3
    )
    for metric, row in zip(fig6.PANELS, long, strict=True):
        assert len(thin(row[0])) == len(thin(row[1])) == 9
        assert row[2].axison == (metric in fig6.PAPER)
        assert changes(row[0]) == [5, 10, 15, 20, 25]
    assert changes(long[0, 2]) == [5, 10, 15, 20, 25]


@pytest.mark.parametrize("claim", fig6b.CLAIMS, ids=lambda claim: claim.id)
def test_the_arms_that_a_claim_states_are_those_whose_runs_it_takes(claim):
    data = ants()
    own = [there(data.runs, arm)["id"] for arm in claim.arms]
    assert [len(ids) for ids in own] == [3] * len(claim.arms)
    samples = claim.samples(data)
    assert len(samples) == 3

    def of(ids):
        return replace(data, runs=data.runs[data.runs["id"].isin(ids)])

    pd.testing.assert_series_equal(claim.samples(of(pd.concat(own))), samples)
    for ids in own:
        assert claim.samples(of(set(data.runs["id"]) - {*ids})).empty  # control
