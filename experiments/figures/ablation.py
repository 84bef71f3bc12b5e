"""The two-by-two of bias and decay (section 5) from a start with identical neurons: drawn from the runs of figure 1."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from experiments.analysis import arms, plotting
from experiments.analysis.arms import IDENTICAL, SIGMA, SIGMAS, VANILLA, arm, beats, decay, look, syre
from experiments.analysis.claims import Claim, Superiority
from experiments.analysis.results import Results, select
from experiments.analysis.stats import t_interval
from experiments.figures.fig1 import free, stuck

TITLE = "two-by-two: bias and decay, apart and together, from a collapsed start"
EXPERIMENT = "fig1"

MILD, STRONG = 1e-3, 1e-2
METRICS = {"distance": "distance of neurons\nthat start identical", "rank": "rank (of 100)", "loss": "test loss"}
LIMITS = {"distance": (-0.05, 1.05), "rank": (0, 105), "loss": (0, 0.4)}
AT = {IDENTICAL: 0.9}
NEITHER, DECAY = VANILLA | AT, decay(AT, gamma=MILD)


def bias(sigma: float, gamma: float = 0.0) -> dict[str, Any]:
    """The start of Eq. (6), w_0 = init + b; then plain decay or none."""
    return arm("offset", AT, sigma=sigma, gamma=gamma)


def both(sigma: float, gamma: float = MILD, start: str = "shift") -> dict[str, Any]:
    return syre(AT, sigma=sigma, gamma=gamma, start=start)


def _best_of_four(results: Results) -> pd.Series:
    """How far the loss of syre (sigma = 0.1) is below the best of the three other cells."""
    others = [results.by_seed("loss", cell) for cell in (NEITHER, DECAY, bias(0.1))]
    return pd.concat(others, axis=1).min(axis=1, skipna=False) - results.by_seed("loss", both(0.1))


NEVER = "the neurons that start identical never come apart (distance < 1e-6)."
STUCK = f"With neither, or (the same run) from the same weights with a bias but no decay, {NEVER}"
FREE = "With both, from the same weights, they come apart (final distance above 1/2); σ = {:g}."
BEST = "syre (σ = 0.1) ends at a lower test loss than the best of the other three cells."
ALONE = "From the shifted start of Eq. (6) syre ends at a {} than the start alone, γ = 0; σ = {:g}."
CENTRE = "From the same start, under γ = 0.01, syre ends at a {} than plain decay; σ = 0.1."
AT_STRONG = (both(0.1, STRONG), bias(0.1, STRONG))
CLAIMS: tuple[Claim, ...] = (
    stuck("neither-stuck", STUCK, "5.1", NEITHER),
    stuck("decay-stuck", f"With decay but no bias {NEVER}", "5.1", DECAY),
    *(free(f"both-free-{s:g}", FREE.format(s), "5.1", both(s, start="keep")) for s in SIGMAS),
    Superiority("both-best", BEST, "ours", _best_of_four),
    *(
        beats(f"decay-adds-{metric}-{s:g}", ALONE.format(better, s), "ours", metric, both(s), bias(s))
        for metric, better in (("rank", "higher rank"), ("loss", "lower test loss"))
        for s in SIGMAS
    ),
    beats("centre-adds-rank-0.1", CENTRE.format("higher rank"), "ours", "rank", *AT_STRONG),
    beats("centre-adds-loss-0.1", CENTRE.format("lower test loss"), "ours", "loss", *AT_STRONG),
)

NOTES = """
**What it shows.** Neither, or decay alone: stuck, to the last bit. Bias alone, from the same start: the same run as
neither. Both: free. So far as theory says. But Eq. (6) as written also starts off the symmetric point, and from a start
on which gradient descent is unstable that alone is enough to leave it: in the loss it cannot be told from syre. What
the anchored decay adds there is rank, a little at γ = 0.001 and 40 of 100 at γ = 0.01, where decay to 0 draws neurons
together and decay to the anchors keeps them apart.

**The four cells.** σ and γ each 0 or not, from the start of figure 1 in which 90 of 100 neurons are copies of one.
With σ > 0 and γ = 0 there are two readings. From the same weights, w_0 = init, the loss ℓ(θ + b) with θ_0 = init − b
takes every step that ℓ(w) takes: a bias without decay only moves the symmetry (Proposition 1), and the cell *is* the
run with neither (tested; drawn twice). As Eq. (6) is written, w_0 = init + b: the start is then off the symmetric
point, though the symmetry is as it was. That start alone can leave a collapsed state if the state is unstable, and
then the two-by-two says little. What the decay towards b adds to it is tested apart: against the shifted start
without decay at γ = 0.001, and against the shifted start with plain decay at γ = 0.01, which draws neurons together.

From left to right within a cell: σ = 0.01, 0.1, 1 (below: 0.1). γ = 0.01 and σ = 0.1 were chosen on seeds 100 and 101:
ranks 51 and 74 for the shifted start with plain decay, 100 for syre (test losses 0.186 and 0.164 against 0.154); at
γ = 0.03 ranks 32 and 59 against 100 (losses 0.280 and 0.267 against 0.252), at σ = 1 the shifted start keeps 87 to 97.
Settings, unknowns and runs are those of figure 1.
"""


Cell = tuple[str, str, list[dict[str, Any]]]  # label, the regularizer whose colour it has, one arm a sigma


def _cells(gamma: float, sigmas: tuple[float, ...]) -> list[Cell]:
    """From left to right; the start that syre keeps is that of the cells without bias."""
    same: Cell = ("σ > 0\nγ > 0\nsame start", "syre", [both(s, gamma, "keep") for s in sigmas])
    shifted: Cell = ("σ > 0\nγ > 0\nshifted", "syre", [both(s, gamma) for s in sigmas])
    without: Cell = ("σ = 0\nγ > 0", "weight_decay", [decay(AT, gamma=gamma)])
    if gamma == STRONG:
        return [without, same, ("decay to 0\nγ > 0\nshifted", "offset", [bias(s, gamma) for s in sigmas]), shifted]
    nothing: list[Cell] = [(label, "vanilla", [NEITHER]) for label in ("σ = 0\nγ = 0", "σ > 0\nγ = 0\nsame start")]
    return [*nothing, without, same, ("σ > 0\nγ = 0\nshifted", "offset", [bias(s) for s in sigmas]), shifted]


def draw(results: Results) -> Figure:
    results = arms.usual(results)
    figure, axes = plotting.panels(3, 2, width=3.7, height=2.6)
    table = results.final(*METRICS)
    for row, (gamma, sigmas) in enumerate(((MILD, SIGMAS), (STRONG, (0.1,)))):
        cells = _cells(gamma, sigmas)
        for ax, (metric, label) in zip(axes[3 * row :], METRICS.items(), strict=False):
            for place, (_, name, levels) in enumerate(cells):
                for k, level in enumerate(levels):
                    own = look(name, level[SIGMA] if name == "syre" else None)
                    mean, low, high, _ = t_interval(select(table, **level)[metric].dropna())
                    at, bar = place + 0.2 * (k - (len(levels) - 1) / 2), [[mean - low], [high - mean]]
                    ax.errorbar(at, mean, bar, color=own.color, marker=own.marker, label=own.label)
            ax.set(ylabel=label, title=f"γ = {gamma:g} where γ > 0", ylim=LIMITS[metric])
            ax.set_xticks(range(len(cells)), [cell[0] for cell in cells], fontsize=6.5)
    return plotting.with_legend(figure)
