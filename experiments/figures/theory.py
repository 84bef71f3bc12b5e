"""Every proposition, theorem and corollary of the paper, as a numerical experiment (measured by syre/theory)."""

from collections.abc import Callable, Iterable
from functools import partial
from math import log, pi, sqrt
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis import arms, plotting
from experiments.analysis.claims import Claim, Equivalence, Samples, Superiority
from experiments.analysis.notes import Numbers
from experiments.analysis.plotting import Look
from experiments.analysis.results import Results, select
from experiments.analysis.stats import loglog_slope
from experiments.analysis.summaries import Finding
from experiments.analysis.words import interval, mean

TITLE = "every proposition, theorem and corollary as a numerical experiment"

ZERO = 1e-9  # what counts as 0: rounding is below, what a statement calls different from 0 is above
STRENGTH = "gamma sigma"


# ---- one number a seed -----------------------------------------------------------------------------------------------


def rows(results: Results, task: str, *metrics: str, **at: object) -> pd.DataFrame:
    """The runs of a task at some of its settings: `rows(results, "theorem4", "median", kind="flips")`."""
    return results.final(*metrics, **{"task.name": task}, **{f"task.{key}": value for key, value in at.items()})


def value(task: str, metric: str, over: Callable[[np.ndarray], float] = np.mean, **at: object) -> Samples:
    """A metric, averaged (or `over`, say its maximum) over the settings that are left open."""
    return lambda r: rows(r, task, metric, **at).groupby("seed")[metric].agg(lambda v: over(v.to_numpy()))


def slope(task: str, x: str, y: str, **at: object) -> Samples:
    """The log-log slope of a metric y against x, a setting (`task.sigma`) or a metric too."""
    return lambda r: loglog_slope(rows(r, task, *{x, y} - {*r.runs}, **at), x, y)


def escapes(results: Results, *metrics: str) -> pd.DataFrame:
    """The escapes with a bias, and their gamma sigma."""
    table = rows(results, "escape", "steps", "rate", *metrics)
    return table.assign(**{STRENGTH: table["task.gamma"] * table["task.sigma"]})[table["task.sigma"] > 0]


def escape_slope(results: Results) -> pd.Series:
    """Steps per e-folding of 1 / (gamma sigma), in units of 1 / log(1 + eta |lambda|), where gamma sigma <= 1e-4."""
    table = escapes(results)
    table = table[table[STRENGTH] <= 1.001e-4]
    fit = lambda rows: -np.polyfit(np.log(rows[STRENGTH]), rows["steps"] * rows["rate"], 1)[0]  # noqa: E731
    return pd.Series({seed: fit(rows) for seed, rows in table.groupby("seed")}, dtype=float)


# ---- claims ----------------------------------------------------------------------------------------------------------


def zero(id: str, text: str, source: str, samples: Samples) -> Equivalence:
    return Equivalence(id, text, source, samples, margin=ZERO, paper="0")


def equal(id: str, text: str, source: str, samples: Samples, paper: float = 1.0, margin: float = 0.05) -> Equivalence:
    """The effect is what was measured less the value that the statement predicts, `paper`."""
    return Equivalence(id, text, source, lambda r: samples(r) - paper, margin=margin, paper=f"{paper:g}")


def nonzero(id: str, text: str, source: str, samples: Samples) -> Superiority:
    """The effect is in decades above what counts as 0."""
    decades, argued = lambda r: np.log10(samples(r).clip(lower=1e-20) / ZERO), "whether it is 0, not how large it is"
    return Superiority(id, text, source, decades, paper="> 0", argued=argued)


def below(id: str, text: str, source: str, samples: Samples, limit: float = 0.1) -> Superiority:
    """The effect is what the limit leaves."""
    return Superiority(id, text, source, lambda r: limit - samples(r), paper="≥ 0", argued="what the bound leaves")


BOTH: dict[str, Any] = {"gamma": 0.1, "sigma": 0.1}
DECAY, BIAS = BOTH | {"sigma": 0}, BOTH | {"gamma": 0}
thm1, thm2, thm3, thm5 = (partial(value, f"theorem{k}") for k in (1, 2, 3, 5))
minima, cor1 = (partial(value, task) for task in ("theorem3_minima", "corollary1"))

SEARCH = "a blind search for a symmetry of rank 1 in a network with four"
WITH_BOTH = f"With bias and weight decay (γ = σ = 0.1) {SEARCH} finds none."
GONE = "Distinct D_ii (σ_D = 0.001) remove the symmetries of (|θ|² − 1)² that D = I leaves, every n ⊥ θ₀."
NO_OTHER = "With distinct D_ii (σ_D = 0.001) a blind search finds no symmetry of (|θ|² − 1)²."
NEAREST = "What is left of the nearest symmetry of (|θ|² − 1)² is in proportion to σ_D, where σ_D ≪ σ (log-log slope)."
REMOVAL = (
    nonzero("thm1", WITH_BOTH, "Thm 1", thm1("found", **BOTH)),
    zero(
        "thm1-decay", f"With weight decay alone (σ = 0) {SEARCH} finds one (residual 0).", "5.1", thm1("found", **DECAY)
    ),
    zero("thm1-bias", f"With a bias alone (γ = 0) {SEARCH} finds one (residual 0).", "5.1", thm1("found", **BIAS)),
    nonzero("thm2-orthogonal", GONE, "Thm 2", thm2("orthogonal", sigma_d=1e-3)),
    nonzero("thm2", NO_OTHER, "Thm 2", thm2("found", sigma_d=1e-3)),
    equal("thm2-slope", NEAREST, "ours", slope("theorem2", "task.sigma_d", "found", sigma_d=[1e-4, 1e-3, 1e-2])),
)

ACROSS = "At a given φ the difference of the loss across a mirror has std 4γσ over draws of the bias."
MINIMA = "At local minima the difference across a mirror is of order γσ: its rms is above half of 4γσ at every γ."
WEAK = "Where the decay is weak (γ = 0.001) the rms of the difference at local minima is 4γσ, as at a given φ."
CAVEAT = "Where the decay is strong (γ = 0.1) the rms at local minima exceeds 4γσ by a tenth: minima follow the bias."
ALONG = "At a symmetric point the gradient along P, 0 without a bias, has with it an rms of 2γσ√rank P."
WEAKEST = "The weakest of N broken {} falls as 1/N (log-log slope of the median)."
UNION = "Pr(Δ < ε), for the weakest of N broken reflections, is below its union bound δ = 2Nε/(√2π 4γσ) = 0.1."
weakest = partial(slope, "theorem4", "reflections", "median")
STRENGTHS = (
    equal("thm3", ACROSS, "Thm 3", thm3("ratio")),
    Superiority("thm3-minima", MINIMA, "Thm 3", minima("rms", np.min), margin=0.5, paper="Ω(γσ)"),
    equal("thm3-weak", WEAK, "ours", minima("rms", gamma=1e-3), margin=0.1),
    Superiority("thm3-caveat", CAVEAT, "ours", lambda r: minima("rms", gamma=0.1)(r) - 1, margin=0.1),
    equal("cor1", ALONG, "Cor. 1", cor1("ratio")),
    *(equal(f"thm4-{k}", WEAKEST.format(k), "Thm 4", weakest(kind=k), paper=-1) for k in ("flips", "swaps")),
    below("thm4-bound", UNION, "Thm 4", value("theorem4", "frequency")),
)

ON = {"pairs": "on k pairs of neurons", "regular": "on 2^k neurons"}
RARE = "Pr(min Δ < ε) of Z₂^k {} is below 0.1, a union bound over log₂|U| subgroups."
GENERATED = "No subgroup of Z₂^k on 2^k neurons is weaker than those of its generators."
ROOT = "Δ_U, of a whole group, grows as the square root of the rank of I − Ū (log-log slope)."
root = slope("theorem5", "rank", "rms", group="symmetric")


def _subspaces(group: str, words: str) -> Superiority:
    text = f"Z₂^4 {words} has no more than log₂|U| = 4 broken subspaces that hold no other."
    log2, subspaces = (thm5(metric, group=group, size=4) for metric in ("log2", "subspaces"))
    room = lambda r: log2(r) + 1 - subspaces(r)  # noqa: E731
    argued = "a count: the effect is 5 less it"
    return Superiority(f"thm5-3-{group}", text, "Thm 5 (3)", room, paper="≥ 1", argued=argued)


GROUPS = (
    equal("thm5-1-slope", ROOT, "Thm 5 (1)", root, paper=0.5, margin=0.025),
    _subspaces("pairs", "on 4 pairs of neurons"),
    _subspaces("regular", "on 16 neurons"),
    zero("thm5-3-generators-regular", GENERATED, "Thm 5 (3)", thm5("missed", np.max, group="regular")),
    *(below(f"thm5-4-{g}", RARE.format(ON[g]), "Thm 5 (3, 4)", thm5("frequency", group=g)) for g in ON),
)

ALWAYS = "With a bias gradient descent leaves a symmetric saddle at every γσ from 1e-8 on (fraction of escapes)."
LINEAR = "The time of escape is linear in log(1/γσ), one e-folding for each: its slope is 1/log(1 + η|λ|)."
TRAINING = (
    equal("escape-always", ALWAYS, "4", lambda r: escapes(r, "escaped").groupby("seed")["escaped"].min(), margin=ZERO),
    equal("escape-slope", LINEAR, "ours", escape_slope),
)
CLAIMS: tuple[Claim, ...] = (*REMOVAL, *STRENGTHS, *GROUPS, *TRAINING)

MOVED = "moved to tests/test_theory.py: an identity, exact in float64"
CONTROL = "moved to tests/test_theory.py: the control of an identity"
COUNTED = "moved to tests/test_theory.py: a property of the group, the same on every seed"
RETIRED = {
    **dict.fromkeys(("prop1-centre", "prop1-question", "prop1-translation", "prop1-decay"), MOVED),
    **dict.fromkeys(("prop2-mask", "prop2-rank", "prop2-solution", "prop2-moved"), MOVED),
    **dict.fromkeys(("prop3-sgd", "prop3-adam", "prop3-reduced"), MOVED),
    **dict.fromkeys(("thm1-known", "thm2-identity", "thm2-planted", "thm2-diagonal", "cor1-plain"), MOVED),
    **dict.fromkeys(("eq13", "eq13-advanced", "eq13-slope", "escape-never"), MOVED),
    **dict.fromkeys(("prop1-control", "prop2-control", "prop3-syre-sgd", "prop3-syre-adam", "thm1-moved"), CONTROL),
    **dict.fromkeys(("thm5-2-order", "thm5-2-minimal", "thm5-2-count"), COUNTED),
    **dict.fromkeys(("thm5-3-generators-pairs", "thm5-3-generators-cyclic"), COUNTED),
    "thm3-advanced": "moved to tests/test_theory.py: the law of thm3, with D",
    "cor1-torch": "moved to tests/test_theory.py: the law of cor1 in torch's units",
    "thm5-1": "moved to tests/test_theory.py: the constant of the law of thm5-1-slope",
    "escape-monotone": "escape-slope says how much sooner",
}


def notes(results: Results) -> str:
    weak = Numbers(results).interval(lambda results: minima("rms", gamma=1e-3)(results) - 1, times=100)
    return f"""
**How to read it.** Each statement is one task of `syre/theory`, measured in float64 without the trainer. What is exact
there, and cannot fail but by a mistake, is a test of the library, `tests/test_theory.py`, and no claim here:
Propositions 1 to 3, Eq. (13), by how much known symmetries are broken, and Theorem 5 (2). What draws of the bias
estimate, what a search finds or what a fit shows is a claim. Where a statement predicts a number, the effect is what
was measured less that number (the column "paper"). 0 means below 1e-9, and "not 0" above it; the effect of the latter
is in decades above 1e-9.

**What it shows.** Theorems 1 and 2 hold, Theorems 3 to 5 (1, 4) and Corollary 1 with their constants, which the paper
leaves to Ω(·): 4γσ, 2γσ√rank P, 1/N.
- **Both parts are needed** (Theorem 1): a blind search for any reflection of rank 1 about any centre, in a network
  u·w with four, finds one with decay alone or with a bias alone, and none with both.
- **D matters** (Theorem 2, in no experiment of the paper): where symmetries are uncountable, as in (|θ|² − 1)², Eq.
  (6) leaves every reflection orthogonal to θ₀. Eq. (7) removes them, but as weakly as σ_D is small: what remains to
  tell the nearest one from a symmetry is in proportion to γσ_D, not to γσ.
- **Theorem 3 is Gaussian at a given φ only.** At a local minimum φ depends on θ₀. With weak decay the law holds
  within the error of ten seeds (a difference of {weak} %); with strong decay minima lean toward the bias, and the
  difference is larger: the bound Ω(γσ) is safe.
- **Theorem 5 (3) depends on the representation.** The proof shows that the broken subspace of any V meets that of a
  generator's group; to reduce to the generators it would have to contain it. For Z₂^k on itself, 2^k neurons, 2^k − 1
  broken subspaces hold no other, log₂|U| = k of them being those of the generators. The probability in (4) is
  nevertheless below a union bound over log₂|U|: the many subspaces are large, and large ranks do not come near 0.
- **Escape.** From γσ = 1e-8 on, gradient descent leaves a symmetric saddle in a time that costs one e-folding of the
  instability for each e-folding of 1/γσ. A small bias is thus enough where the saddle is unstable; without one the
  copies stay equal to the last bit.

**Conventions.** γ is the paper's, the factor of |θ|²: torch's `weight_decay` is 2γ. σ is the absolute std
of θ₀ here, not in units of 1/√fan_in. The statements were recovered from a text without its formulas, so their
constants are ours; Definition 1, Assumption 1 and Lemma 1 are used, not tested.

**Chosen.** A two-layer tanh network without biases on a teacher's data, so that swaps and sign flips are its
symmetries; local minima by a saddle-free Newton method from random starts, converged to gradients below 1e-7. Steps
are counted until |Pφ| > 0.1, with γ = 0.01 and η = 0.2, from the lowest minimum among networks with two equal neurons.
Slopes of the escape time are fitted where γσ ≤ 1e-4: above, the bias moves the minimum itself by as much as the
threshold. Margins: 5 % for laws that draws of θ₀ estimate, 10 % for local minima.
"""


# ---- figure ----------------------------------------------------------------------------------------------------------

BLUE, ORANGE, GREEN = (arms.look(name).color for name in ("syre", "weight_decay", "syre_advanced"))
BLOCK = 5  # weights of a neuron, the rank of a swap: 3 inputs, 2 outputs
first, second = (partial(Look, color=color, marker=marker) for color, marker in ((BLUE, "D"), (ORANGE, "s")))


def law(ax: Axes, x: Iterable[float], of: Callable[[float], float], label: str) -> None:
    """What a statement predicts between the ends of x."""
    ends = [float(min(x)), float(max(x))]
    ax.plot(ends, [of(end) for end in ends], color="black", lw=0.8, ls=":", label=label, zorder=3)


def draw(results: Results) -> Figure:
    figure, axes = plotting.panels(3, 2, width=3.6, height=2.9)
    for ax, panel in zip(axes, (theorem2, theorem3, theorem4, rank, counts, escape), strict=True):
        panel(ax, results)
        ax.legend()
    return figure


def theorem2(ax: Axes, results: Results) -> None:
    table = rows(results, "theorem2", "orthogonal", "found")
    plotting.line_with_band(ax, table, "task.sigma_d", "orthogonal", second(label="reflections n ⊥ θ₀"))
    plotting.line_with_band(ax, table, "task.sigma_d", "found", first(label="nearest one found"))
    ax.set_xscale("symlog", linthresh=1e-4)
    ax.set(yscale="log", xlabel="σ_D (0: D = I)", ylabel="rms residual", title="Theorem 2: (|θ|² − 1)²")


def theorem3(ax: Axes, results: Results) -> None:
    for task, metric, look in (
        ("theorem3", "std", first(label="Δ at a given φ, std")),
        ("theorem3_minima", "rms", Look(label="Δ at minima, rms", color=GREEN, marker="o")),
        ("corollary1", "rms", second(label="|P∇ℓ| / √rank P, rms")),
    ):
        table = rows(results, task, metric)
        strength = table["task.gamma"] * table["task.sigma"]
        unit = {"theorem3": 1, "corollary1": BLOCK**-0.5}.get(task, 4 * strength)
        plotting.line_with_band(ax, table.assign(x=strength, y=table[metric] * unit), "x", "y", look)
    law(ax, (1e-5, 1e-1), lambda x: 4 * x, "4γσ, 2γσ")
    law(ax, (1e-5, 1e-1), lambda x: 2 * x, "_")
    ax.set(xscale="log", yscale="log", ylim=(3e-6, None), xlabel="γσ", title="Theorem 3 and Corollary 1: strength")


def theorem4(ax: Axes, results: Results) -> None:
    table = rows(results, "theorem4", "reflections", "median")
    for kind, look in (("flips", first(label="sign flips")), ("swaps", second(label="swaps of neurons"))):
        plotting.line_with_band(ax, select(table, **{"task.kind": kind}), "reflections", "median", look)
    law(ax, table["reflections"], lambda n: sqrt(pi / 2) * log(2) / n, "√(π/2) ln 2 / N")
    ax.set(xscale="log", yscale="log", xlabel="reflections N", ylabel="median of min Δ / 4γσ")
    ax.set_title("Theorem 4: the weakest of N")


def rank(ax: Axes, results: Results) -> None:
    table = rows(results, "theorem5", "rank", "rms", group="symmetric")
    plotting.line_with_band(ax, table, "rank", "rms", first(label="S₂, S₃, S₄ on 2, 3, 4 neurons"))
    law(ax, table["rank"], sqrt, "√rank")
    ax.set(xscale="log", yscale="log", xlabel="rank of I − Ū", ylabel="rms Δ_U / 2γσ", title="Theorem 5 (1): rank")
    ax.minorticks_off()
    ax.set_yticks([2, 4, 8, 16], ["2", "4", "8", "16"])


def counts(ax: Axes, results: Results) -> None:
    table = rows(results, "theorem5", "log2", "subspaces")
    for group, look in (("regular", second(label="Z₂^k on 2^k neurons")), ("pairs", first(label="Z₂^k on k pairs"))):
        plotting.line_with_band(ax, select(table, **{"task.group": group}), "log2", "subspaces", look)
    law(ax, (1, 4), lambda x: x, "log₂|U|")
    ax.set(xlabel="log₂|U|", xticks=[1, 2, 3, 4], ylabel="minimal broken subspaces")
    ax.set_title("Theorem 5 (3): how many matter")


def escape(ax: Axes, results: Results) -> None:
    table = escapes(results, "expected")
    table = table.assign(time=table["steps"] * table["rate"], law=table["expected"] * table["rate"])
    plotting.line_with_band(ax, table, STRENGTH, "time", first(label="measured"))
    mean = table.groupby(STRENGTH)["law"].mean()
    ax.plot(mean.index, mean, color="black", lw=0.8, ls=":", label="log(1 + 0.1 |λ| / f)", zorder=3)
    never = rows(results, "escape", "steps", "rate", sigma=0)
    ax.axhline((never["steps"] * never["rate"]).mean(), color=ORANGE, label="no bias: not by then")
    ax.set(xscale="log", ylim=(0, None), xlabel="γσ", ylabel="e-foldings until |Pφ| > 0.1")
    ax.set_title("Escape from a symmetric saddle")


def finding(results: Results) -> Finding:
    """Whether a search finds a symmetry, the constants of the laws, and the count that fails."""
    found = [thm1("found", **which)(results).max() for which in (DECAY, BIAS)]
    both = thm1("found", **BOTH)(results).min()
    one, none = ("leaves" if max(found) < ZERO else "removes", "leave none" if both > ZERO else "leave some")
    laws = [law(results) for law in (thm3("ratio"), weakest(kind="flips"), root)]
    log2, subspaces = (thm5(metric, group="regular", size=4)(results) for metric in ("log2", "subspaces"))
    return Finding(
        f"Decay alone, or a bias alone, {one} symmetries that a search finds; both together {none}. Their strength "
        f"is {mean(laws[0], 2)} of 4γσ and goes as N^{mean(laws[1], 2)} and rank^{mean(laws[2], 2)}; for an abelian "
        f"group of order 16, {mean(subspaces)} subspaces matter; log₂|U| is {mean(log2)}.",
        "strength of γσ, 1/N and √rank; about log|U|",
        f"{interval(laws[0], 2)} of 4γσ; exponents {mean(laws[1], 2)} and {mean(laws[2], 2)}; {mean(subspaces)} "
        "subspaces",
    )
