"""Arms are spelt, drawn and compared in one way: settings that are not given stay open, and sigma is chosen fairly."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from experiments.analysis import arms, plotting
from experiments.analysis.arms import GAMMA, NAME, SCOPE, SIGMA, START, UNIT, USUAL, arm, decay, syre
from experiments.analysis.claims import Equivalence, Monotone, NonInferiority, Superiority, evaluate
from experiments.analysis.results import Results, ResultsError, select


def sweep(metric="loss", seeds=3):
    """Results of vanilla, decay, syre at three sigmas, and syre at sigma = 1 with the start kept."""
    names = [("vanilla", np.nan, ""), ("weight_decay", np.nan, ""), *(("syre", s, "shift") for s in (0.01, 0.1, 1.0))]
    rows = [
        {NAME: name, SIGMA: sigma, START: start or None, GAMMA: gamma, "seed": seed}
        for name, sigma, start in [*names, ("syre", 1.0, "keep")]
        for gamma in (0.1, 0.2, 0.4)
        for seed in range(seeds)
    ]
    runs = pd.DataFrame(rows).assign(id=[f"{k:012x}" for k in range(len(rows))], status="done")
    value = runs[GAMMA] + runs["seed"] + runs[SIGMA].fillna(5) + 100 * (runs[START] == "keep")
    metrics = runs[["id"]].assign(step=1, split="test", metric=metric, value=value)
    return Results(experiment="fig0", scale="cpu", runs=runs, metrics=metrics)


# ---- arms ------------------------------------------------------------------------------------------------------------


def test_an_arm_names_what_is_given_and_leaves_the_rest_open():
    assert arm("syre") == {NAME: "syre"} | USUAL
    assert syre() == {NAME: "syre", START: "shift"} | USUAL
    assert syre(sigma=0.0, gamma=0.1, start="keep") == {NAME: "syre", START: "keep", SIGMA: 0.0, GAMMA: 0.1} | USUAL
    assert decay({GAMMA: 0.1, "data.inputs": 5}, {"data.inputs": 7}) == USUAL | {
        **{NAME: "weight_decay", GAMMA: 0.1, "data.inputs": 7}
    }
    place = {GAMMA: 0.1}
    assert syre(place, sigma=1) == syre(gamma=0.1, sigma=1)
    assert place == {GAMMA: 0.1}
    assert len(select(sweep().runs, **syre(sigma=1))) == 9


def test_an_arm_is_in_relative_units_and_decays_everything_unless_it_says_otherwise():
    """Older claims mean the runs that they meant, also where the tables have arms in other units by now."""
    rows = [("vanilla", None, None), ("weight_decay", None, "all"), ("weight_decay", None, "matrices")]
    rows += [("syre", unit, scope) for unit in ("relative", "absolute") for scope in ("all", "matrices")]
    runs = pd.DataFrame(rows, columns=[NAME, UNIT, SCOPE]).assign(**{START: "shift", "row": range(len(rows))})

    def found(arm, df=runs):
        return select(df, **arm)["row"].tolist()

    assert [found(a) for a in (arms.VANILLA, decay(), syre(), arm("syre"))] == [[0], [1], [3], [3]]
    assert found(decay(scope="matrices")) == [2]
    assert found(syre(unit="absolute")) == [5]
    assert found(syre({UNIT: "absolute", SCOPE: "matrices"}, unit="relative")) == [6]  # settings win, as others do
    assert found(syre({UNIT: ["relative", "absolute"]}, scope="matrices")) == [4, 6]
    older = runs.drop(columns=[UNIT, SCOPE])  # a table of regularizers without these settings
    assert found(decay(), older) == [1, 2]
    with pytest.raises(ResultsError, match=r"no column 'regularizer\.unit'"):
        found(syre(unit="absolute"), older)


# ---- looks -----------------------------------------------------------------------------------------------------------


def test_no_two_arms_share_a_colour_a_marker_or_a_label():
    for a, b in itertools.combinations([*arms.LOOKS.values(), arms.SAME_START, arms.NOT_SHARED], 2):
        assert len({a.label, b.label}) == len({a.marker, b.marker}) == 2
        assert np.linalg.norm(np.subtract(to_rgb(a.color), to_rgb(b.color))) > 0.25, (a.label, b.label)


def test_a_larger_sigma_is_a_darker_blue():
    lightness = [sum(to_rgb(arms.look("syre", sigma).color)) for sigma in (0, 0.01, 0.1, 0.3, 1, 3, 10)]
    assert lightness == sorted(lightness, reverse=True)
    assert arms.look("syre", 0.1).label == "syre, σ = 0.1"


def test_a_reading_of_sigma_has_a_hue_of_its_own_darker_where_sigma_is_larger():
    readings = list(itertools.product(("relative", "absolute"), ("all", "matrices")))
    shades = {reading: [look_of(reading, sigma) for sigma in (0.01, 0.1, 1)] for reading in readings}
    for several in shades.values():
        lightness = [sum(to_rgb(look.color)) for look in several]
        assert lightness == sorted(lightness, reverse=True)
    for (_, mine), (_, other) in itertools.combinations(shades.items(), 2):
        for a, b in itertools.product(mine, other):
            assert a.label != b.label
            assert np.linalg.norm(np.subtract(to_rgb(a.color), to_rgb(b.color))) > 0.1, (a.label, b.label)
    assert look_of(("absolute", "matrices"), 0.1).label == "syre, absolute σ = 0.1, matrices alone"
    whole, bare = arms.look("weight_decay"), arms.look("weight_decay", scope="matrices")
    assert (bare.label, bare.color != whole.color) == ("weight decay, matrices alone", True)
    assert arms.look("syre", 0.1) == look_of(("relative", "all"), 0.1)


def look_of(reading, sigma):
    return arms.look("syre", sigma, unit=reading[0], scope=reading[1])


def test_a_regularizer_without_a_look_of_its_own_always_has_the_same():
    assert arms.look("zero_half") == arms.look("zero_half") == arms.Look(label="zero half", color="#5F7F00", marker="8")
    assert arms.look("zero_half", 1).label == "zero half, σ = 1"
    for a, b in itertools.product(arms.SPARE, [*arms.LOOKS.values(), arms.SAME_START]):
        assert (a, "8") != (b.color, b.marker)


def test_arms_come_in_one_order_whatever_the_order_of_the_rows():
    df = sweep().runs
    names = ["vanilla", "weight decay", "syre, σ = 0.01", "syre, σ = 0.1", "syre, σ = 1"]
    assert [look.label for look, _ in arms.by_arm(df.sample(frac=1, random_state=0))] == names
    assert sum(len(rows) for _, rows in arms.by_arm(df)) == len(df)
    apart = list(arms.with_same_start(df.sample(frac=1, random_state=0)))
    assert [look.label for look, _ in apart] == [*names, "syre, σ = 1, start kept"]
    assert [len(rows) for _, rows in apart] == [9] * 6
    assert [look.label for look, _ in arms.with_same_start(df[df[START] != "keep"])] == names
    own = arms.Look(label="seed 0 of the strongest", color="0", marker="x")
    apart = list(arms.with_same_start(df, {own: (df[GAMMA] == 0.4) & (df["seed"] == 0) & (df[START] != "keep")}))
    assert [look.label for look, _ in apart] == [*names, "syre, σ = 1, start kept", own.label]
    assert [len(rows) for _, rows in apart] == [8] * 5 + [9, 5]  # nothing is drawn twice


def test_curves_are_a_line_an_arm_in_its_look():
    _, (ax,) = plotting.panels()
    arms.curves(ax, arms.with_same_start(sweep(seeds=4).final("loss")), GAMMA, "loss")
    drawn = [(line.get_label(), line.get_color(), line.get_marker()) for line in ax.lines[::2]]  # then: hollow markers
    looks = [arms.look("vanilla"), arms.look("weight_decay"), *(arms.look("syre", s) for s in (0.01, 0.1, 1))]
    assert drawn == [(look.label, look.color, look.marker) for look in [*looks, arms.SAME_START]]


def test_nested_curves_are_the_narrower_the_later_so_that_none_is_hidden():
    _, (ax, plain) = plotting.panels(2)
    for nested, panel in ((True, ax), (False, plain)):
        arms.curves(panel, arms.by_arm(sweep(seeds=4).final("loss")), GAMMA, "loss", nested=nested)
    for size in ("get_linewidth", "get_markersize"):
        sizes = [getattr(line, size)() for line in ax.lines[::2]]
        assert sizes == sorted(sizes, reverse=True)
        assert len(set(sizes)) == 5
        assert {getattr(line, size)() for line in plain.lines[::2]} == {sizes[-1]}  # control


# ---- claims ----------------------------------------------------------------------------------------------------------

SAYS, AT = ("C1", "a sentence", "6.3"), {GAMMA: 0.1}


def effect(claim, results):
    return evaluate(claim, results).effect


def test_every_claim_has_its_words_and_its_options():
    options = {"margin": 0.25, "paper": "42 %", "scale": "paper", "argued": "because"}
    for kind, claim in (
        (Superiority, arms.beats(*SAYS, "rank", syre(), decay(), **options)),
        (Equivalence, arms.same(*SAYS, "rank", syre(), decay(), **options)),
        (NonInferiority, arms.costs(*SAYS, "rank", syre(), decay(), **options)),
        (Monotone, arms.rises(*SAYS, "rank", decay(), GAMMA, **options)),
        (Monotone, arms.falls(*SAYS, "rank", decay(), GAMMA, **options)),
    ):
        assert type(claim) is kind
        assert (claim.id, claim.text, claim.source) == SAYS
        assert {key: getattr(claim, key) for key in options} == options
    for claim in (arms.rises(*SAYS, "rank", decay(), GAMMA), arms.falls(*SAYS, "rank", decay(), GAMMA)):
        assert (type(claim), claim.margin) == (Monotone, 0.5)
    assert (arms.POINT, arms.width(300), arms.width(64, 0.1)) == (0.01, 15, pytest.approx(6.4))
    assert arms.ends(None) == ("", ".")
    assert arms.ends(0.01) == ("-0.01", "; σ = 0.01.")


LESS = ("loss", "barrier/loss/max", "symmetry/0.1", "low_rankness", "reconstruction", "reconstruction/mean")


@pytest.mark.parametrize("metric", [*LESS, "accuracy", "accuracy/0.5000", "rank/effective", "reconstruction/variance"])
def test_what_is_better_follows_from_the_metric(metric):
    less = metric in LESS
    assert arms.less_is_better(metric) is less
    claim = arms.beats(*SAYS, metric, syre(AT, sigma=0.1), decay(AT))  # 4.9 less than decay alone
    assert effect(claim, sweep(metric)) == pytest.approx(4.9 if less else -4.9)


@pytest.mark.parametrize(("metric", "cost"), [("loss", -4.9), ("accuracy", 4.9)])
def test_what_costs_less_than_a_margin_may_gain_but_not_lose_more(metric, cost):
    """Losses are the lower, and accuracies too, at sigma = 0.1: by 4.9 in every seed but for a jitter."""
    results = sweep(metric)
    jitter = np.random.default_rng(0).normal(0, 0.01, len(results.metrics))
    noisy = Results(
        experiment="", scale="cpu", runs=results.runs, metrics=results.metrics.assign(value=lambda m: m.value + jitter)
    )
    for margin in (1.0, 5.0):
        claim = arms.costs(*SAYS, metric, syre(AT, sigma=0.1), decay(AT), margin)
        judged = evaluate(claim, noisy)
        assert judged.effect == pytest.approx(-cost, abs=0.05)
        assert judged.verdict == ("reproduced" if cost < margin else "not reproduced")


def test_one_sigma_for_all_metrics_is_chosen_by_one_of_them():
    loss, rank = sweep("loss"), sweep("rank")  # the loss is best at 0.01, the rank at 1
    results = Results(experiment="", scale="cpu", runs=loss.runs, metrics=pd.concat([loss.metrics, rank.metrics]))
    at = {sigma: pytest.approx({k: 0.1 + k + sigma for k in range(3)}) for sigma in (0.01, 1.0)}
    assert arms.tuned(results, "rank", syre(AT)).to_dict() == at[1.0]
    assert arms.tuned(results, "rank", syre(AT, by="loss")).to_dict() == at[0.01]
    assert arms.tuned(results, "loss", syre(AT, by="rank")).to_dict() == at[1.0]
    assert arms.tuned(results, "rank", syre(AT, by="rank")).to_dict() == at[1.0]
    assert arms.final("rank", syre(AT, by="loss"))(results).to_dict() == at[0.01]
    assert effect(arms.beats(*SAYS, "rank", syre(AT, by="loss"), decay(AT)), results) == pytest.approx(-4.99)
    with pytest.raises(ResultsError, match=r"an arm leaves regularizer\.weight_decay open"):
        arms.tuned(results, "rank", syre(by="loss"))
    with pytest.raises(ResultsError, match="no metric test/lss"):
        arms.tuned(results, "rank", syre(AT, by="lss"))


def test_an_open_sigma_is_the_best_of_the_other_seeds_and_a_given_one_is_kept():
    for metric, best in (("loss", 0.01), ("accuracy", 1.0)):
        results = sweep(metric)
        assert arms.tuned(results, metric, syre(AT)).to_dict() == pytest.approx({k: 0.1 + k + best for k in range(3)})
        assert arms.tuned(results, metric, syre(AT, sigma=0.1)).to_dict() == pytest.approx(
            {k: 0.2 + k for k in range(3)}
        )
    results = sweep()
    assert effect(arms.same(*SAYS, "loss", syre(AT), decay(AT), 1.0), results) == pytest.approx(-4.99)
    lucky = results.metrics.assign(
        value=results.metrics["value"] - 50 * (results.runs["seed"] == 0) * (results.runs[SIGMA] == 1)
    )
    tuned = arms.tuned(Results(experiment="", scale="cpu", runs=results.runs, metrics=lucky), "loss", syre(AT))
    assert tuned[0] == pytest.approx(0.11)  # control: seed 0 does not profit from its own luck ...
    assert tuned[1] == pytest.approx(2.1)  # ... which decides for the others


def test_a_trend_runs_over_a_column_within_each_seed():
    assert effect(arms.rises(*SAYS, "loss", decay(), GAMMA), sweep()) == 1
    assert effect(arms.falls(*SAYS, "loss", decay(), GAMMA), sweep()) == -1
    assert effect(arms.rises(*SAYS, "loss", syre(AT), SIGMA), sweep()) == 1
    with pytest.raises(ResultsError, match=r"claim C1: an arm leaves regularizer\.sigma open"):
        effect(arms.rises(*SAYS, "loss", syre(), GAMMA), sweep())


def test_samples_are_levels_and_differences_of_final_values():
    results = sweep()
    assert arms.final("loss", decay(AT), less=5)(results).to_dict() == pytest.approx({0: 0.1, 1: 1.1, 2: 2.1})
    gap = arms.difference("loss", decay(gamma=0.4), decay(AT))
    assert gap(results).to_dict() == pytest.approx(dict.fromkeys(range(3), 0.3))
    assert (arms.minus(gap)(results) == -gap(results)).all()


def test_what_a_metric_has_grown_by_is_nothing_for_a_run_that_failed():
    """Recorded at steps 0, 1 and 2 as 2 less, 1 less, and as it is; seed 1 ends in NaN, seed 2 failed after its end."""
    results = sweep()
    own = select(results.runs, **decay(AT)).set_index("seed")["id"]
    value = results.metrics["value"]
    records = [results.metrics.assign(step=step, value=value - 2 + step) for step in range(3)]
    records[2] = records[2].assign(value=value.mask(results.metrics["id"] == own[1]))
    status = results.runs["status"].mask(results.runs["id"] == own[2], "failed")
    results = replace(results, runs=results.runs.assign(status=status), metrics=pd.concat(records))
    nothing = {1: np.nan, 2: np.nan}
    assert arms.grown("loss", decay(AT))(results).to_dict() == pytest.approx({0: 2.0, **nothing}, nan_ok=True)
    assert arms.grown("loss", decay(AT), after=0)(results).to_dict() == pytest.approx({0: 1.0, **nothing}, nan_ok=True)
