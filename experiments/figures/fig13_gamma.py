"""Figure 13 over the strength of the decay: what connects two networks, the anchored decay or the start they share?"""

from dataclasses import replace
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from experiments.analysis import plotting
from experiments.analysis.arms import (
    GAMMA,
    HOLD,
    NOT_SHARED,
    POINT,
    SAME_START,
    VANILLA,
    arm,
    beats,
    costs,
    decay,
    difference,
    final,
    gain,
    look,
    same,
    syre,
)
from experiments.analysis.claims import Claim, Superiority, per_seed
from experiments.analysis.notes import Numbers
from experiments.analysis.results import Arm, Results, select
from experiments.analysis.stats import paired_differences
from experiments.analysis.summaries import Finding
from experiments.analysis.words import interval, mean

TITLE = "what connects two networks: the anchored decay, or the start they share"

SHARED, KAPPA = "model.shared", "regularizer.kappa"
BARRIER, MIDDLE, ENDS, DISTANCE = "barrier/loss", "accuracy/0.5000", "accuracy", "distance"
GAMMAS = (0.03, 1, 5)
NATS = 0.02  # of the 0.25 of two networks that share nothing: the smallest barrier worth naming
MATRICES: dict[str, Any] = {"scope": "matrices"}

OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "both": ("syre with a shared start and shared anchors", syre({SHARED: True}, sigma=1, **MATRICES)),
    "start": ("the shared start with plain decay", arm("offset", {SHARED: True}, sigma=1, **MATRICES)),
    "anchors": ("shared anchors from two unrelated starts", syre({SHARED: True}, sigma=1, start="keep", **MATRICES)),
    "neither": ("syre with a start and anchors of each network's own", syre({SHARED: False}, sigma=1, **MATRICES)),
}
ZEROS = "[0.0, 0.0, 0.0, 0.0]"
W_ASYM = arm("w_asym", {KAPPA: "[1.0, 1.0, 0.5, 0.25]"})
START_ALONE, MASK_ALONE = W_ASYM | {HOLD: False}, W_ASYM | {KAPPA: ZEROS}
ABSOLUTE = syre({SHARED: True}, sigma=1, unit="absolute", gamma=0.03, **MATRICES)


def _decay(gamma: float) -> Arm:
    return decay(gamma=gamma, **MATRICES)


def _at(key: str, gamma: float) -> Arm:
    return OURS[key][1] | {GAMMA: gamma}


@per_seed
def _per_distance(results: Results, key: str, gamma: float) -> pd.Series:
    """How much lower the barrier of an arm is than that of decay alone, each over the distance of its pair."""
    over = [results.by_seed(BARRIER, a) / results.by_seed(DISTANCE, a) for a in (_decay(gamma), _at(key, gamma))]
    return paired_differences(*over)


LOWER = "At γ = {:g} the barrier with {} is lower than with decay alone, by more than 0.02 nats."
APART = "At γ = {:g} the barrier with {}, over the distance of the pair, is lower than with decay alone by 0.02."
ADDS = "At γ = {:g} syre leaves a lower barrier than its shared start with plain decay, by more than 0.02 nats."
OWN = "At γ = {:g} a start and anchors of each network's own leave a higher barrier than shared ones."
END = "At γ = {:g} the two networks of syre lose less than a point of accuracy against decay alone."
NONE = "At γ = {:g} syre leaves a lower barrier than no decay, by more than 0.02 nats."
FREE = "W-asym's start alone, every entry free from there, has W-asym's barrier within 0.02 nats."
HELD = "W-asym's mask alone, its entries frozen at 0, leaves a higher barrier than W-asym, by more than 0.02 nats."
UNIT = "A bias of unit variance on the matrices (absolute σ = 1) leaves a lower barrier than decay alone."
UNIT_COST = "A bias of unit variance on the matrices (absolute σ = 1) costs the networks less than a point of accuracy."
CLAIMS: tuple[Claim, ...] = (
    *(
        beats(f"{key}-{g:g}", LOWER.format(g, OURS[key][0]), "ours", BARRIER, _at(key, g), _decay(g), NATS)
        for g in GAMMAS
        for key in ("both", "start", "anchors", "neither")
    ),
    *(
        Superiority(f"distance-{g:g}", APART.format(g, OURS["both"][0]), "ours", _per_distance("both", g), margin=NATS)
        for g in GAMMAS
    ),
    *(beats(f"adds-{g:g}", ADDS.format(g), "ours", BARRIER, _at("both", g), _at("start", g), NATS) for g in GAMMAS),
    *(beats(f"own-{g:g}", OWN.format(g), "ours", BARRIER, _at("both", g), _at("neither", g), NATS) for g in GAMMAS),
    *(costs(f"ends-{g:g}", END.format(g), "ours", ENDS, _at("both", g), _decay(g), POINT) for g in GAMMAS),
    *(beats(f"no-decay-{g:g}", NONE.format(g), "ours", BARRIER, _at("both", g), VANILLA, NATS) for g in GAMMAS),
    same("w-asym-start", FREE, "ours", BARRIER, START_ALONE, W_ASYM, NATS),
    beats("w-asym-mask", HELD, "ours", BARRIER, W_ASYM, MASK_ALONE, NATS),
    beats("absolute", UNIT, "arXiv 2606.04754", BARRIER, ABSOLUTE, _decay(0.03), NATS),
    costs("absolute-ends", UNIT_COST, "arXiv 2606.04754", ENDS, ABSOLUTE, _decay(0.03), POINT),
)


def notes(results: Results) -> str:
    say = Numbers(results)

    def lower(key: str) -> str:
        return say.interval(gain(BARRIER, _at(key, 5), _decay(5)), 2)

    adds = say.interval(gain(BARRIER, _at("both", 5), _at("start", 5)), 3)
    alone = say.told(lambda results: mean(abs(difference(BARRIER, START_ALONE, W_ASYM)(results).mean()), 3))
    frozen = say.interval(gain(BARRIER, W_ASYM, MASK_ALONE), 2)
    cost = say.interval(difference(ENDS, _decay(0.03), ABSOLUTE), 1, times=100)
    return f"""
**The contradiction.** In fig13 syre's shared start with plain decay removes the barrier, and shared anchors from
unrelated starts do not. But in 468 steps at γ = 0.03 AdamW's decay has hardly acted: it brings the weights ηγt = 1.4 %
of the way to their anchors.

**What decides it.** γ from 0.03 to 5 over 702 steps, ηγt = 0.02, 0.7 and 3.5; weight matrices alone decay and have
anchors (σ = 1, relative). Two networks that have shrunk lie closer together: the barrier is also judged over the
distance of the pair, |A − B| / √(|A|² + |B|²). Beside it the same question for W-asym (Lim et al. 2024): its start with
every entry free, and its mask with the entries frozen at 0; and a bias of unit variance (arXiv 2606.04754). An effect
worth naming: 0.02 nats.

**What came of it** (five pairs). At γ = 0.03 and 1 it stands as in fig13: the shared start does it, with or without
anchors, and shared anchors from unrelated starts do not. At γ = 5, where the decay has brought the weights to their
anchors, shared anchors connect two networks of unrelated starts as well: the barrier is lower than decay's by
{lower("anchors")} nats; the shared start with plain decay has {lower("start")}, both together {lower("both")}, so that
the anchored decay adds {adds} to the shared start. With a start and anchors of each network's own the barrier is higher
than with decay alone, at every γ. So either shared random point will do, once it determines the networks; the paper's
reason, that a bias removes the permutations, does not need two networks to share it, and those that do not stay apart.
W-asym is no other case: its start alone, with every entry free from there, has its barrier within {alone} nats, and its
mask with the entries frozen at 0 leaves a barrier higher by {frozen}. A bias of unit variance removes the barrier too,
and costs {cost} points of accuracy.

**Trained anew.** The 20 runs of syre at γ = 0.03 are of recipe 2, as in fig13. No barrier moved by more than 0.0022
nats, no accuracy half-way by more than 0.16 points, and no verdict.
"""


LOOKS = {
    "both": look("syre", 1),
    "start": look("offset"),
    "anchors": replace(SAME_START, label="syre, σ = 1, shared anchors, unrelated starts"),
    "neither": replace(NOT_SHARED, label="syre, σ = 1, nothing shared"),
}
PANELS = {BARRIER: "barrier (nats)", MIDDLE: "accuracy half-way", DISTANCE: "distance of the pair"}


def draw(results: Results) -> Figure:
    figure, axes = plotting.panels(3, width=3.2, height=2.8)
    table = results.final(*PANELS)
    for ax, (metric, title) in zip(axes, PANELS.items(), strict=True):
        plotting.line_with_band(ax, select(table, **decay(**MATRICES)), GAMMA, metric, look("weight_decay"))
        for key, own in LOOKS.items():
            plotting.line_with_band(ax, select(table, **OURS[key][1]), GAMMA, metric, own)
        plotting.level(ax, select(table, **VANILLA)[metric].mean(), look("vanilla"), "γ")
        one = replace(look("w_asym"), label="W-asym, γ = 0.03")
        ax.axhline(select(table, **W_ASYM)[metric].mean(), color=one.color, lw=1, ls=":", label=one.label)
        ax.set(xscale="log", xlabel="weight decay γ", title=title)
    return plotting.with_legend(figure, loc="outside lower center", ncols=3)


def finding(results: Results) -> Finding:
    """The barrier where the decay has hardly acted, and where it has: with a shared start, and with shared anchors."""
    arms = {key: [final(BARRIER, _at(key, g))(results) for g in (0.03, 5)] for key in ("start", "anchors")}
    alone = [final(BARRIER, _decay(g))(results) for g in (0.03, 5)]
    start, anchors, neither = ([mean(b, 2) for b in of] for of in (*arms.values(), alone))
    return Finding(
        f"Where decay hardly acts (γ = 0.03) the barrier is {start[0]} nats with a shared start and {anchors[0]} "
        f"with shared anchors alone (decay alone: {neither[0]}); where it does (γ = 5) it is {start[1]} and "
        f"{anchors[1]} ({neither[1]}).",
        "",
        f"shared anchors alone: {interval(arms['anchors'][0], 2)} and {interval(arms['anchors'][1], 2)}",
    )
