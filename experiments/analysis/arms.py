"""What the figures share: the columns they name, the arms they compare, one look an arm, and the usual claims.

    beats("rank", "syre keeps a higher rank than decay alone.", "6.3", "rank", syre(gamma=0.1), decay(gamma=0.1))

Where an arm of syre leaves sigma open, a claim takes for each seed the sigma that is best on the other seeds: by the
metric it judges, or by the one that the arm names (`syre(gamma=0.1, by="accuracy")`), so that all the metrics of a
figure are judged at one sigma.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex

from experiments.analysis.claims import Equivalence, Monotone, NonInferiority, Samples, Superiority, per_seed
from experiments.analysis.plotting import ANY, Limits, Look, line_with_band
from experiments.analysis.results import Arm, Results, one_run_each, select
from experiments.analysis.stats import at_best, monotonicity, paired_differences

# ---- columns and arms ------------------------------------------------------------------------------------------------

NAME, GAMMA, SIGMA, START = "regularizer.name", "regularizer.weight_decay", "regularizer.sigma", "regularizer.start"
UNIT, SCOPE = "regularizer.unit", "regularizer.scope"  # of sigma; of the decay
GAINS, HOLD = "regularizer.gains", "regularizer.hold"  # where norm gains are anchored; whether W-asym holds its entries
ALPHA, IDENTICAL = "data.input_scale", "model.identical"  # scale of the inputs; fraction of neurons that start equal
# What an arm means that does not say otherwise; None is a regularizer that has no such setting.
USUAL = {UNIT: ("relative", None), SCOPE: ("all", None), GAINS: (0, None), HOLD: (True, None)}
BY = "by"  # no column: the metric by which an arm chooses its sigma


def arm(
    name: str,
    *at: Arm,
    gamma: float | None = None,
    sigma: float | None = None,
    start: str = "",
    unit: str = "",
    scope: str = "",
    by: str = "",
) -> dict[str, Any]:
    """The runs of a regularizer at some settings; what is not given stays open, but for what is `USUAL`."""
    given = {NAME: name, GAMMA: gamma, SIGMA: sigma, START: start, UNIT: unit, SCOPE: scope, BY: by}
    chosen: dict[str, Any] = USUAL | {column: value for column, value in given.items() if value not in (None, "")}
    for settings in at:
        chosen |= settings
    return chosen


def decay(*at: Arm, gamma: float | None = None, scope: str = "") -> dict[str, Any]:
    """Weight decay alone, the usual control."""
    return arm("weight_decay", *at, gamma=gamma, scope=scope)


def syre(*at: Arm, start: str = "shift", **settings: Any) -> dict[str, Any]:
    """syre from the start of Eq. (6), or from that of the other arms (`start="keep"`); settings as of `arm`."""
    return arm("syre", *at, start=start, **settings)


VANILLA = arm("vanilla")


def usual(results: Results) -> Results:
    """The runs whose sigma and decay are read as arms mean that do not say otherwise: what most figures draw."""
    return replace(results, runs=select(results.runs, **USUAL))


SIGMAS = (0.01, 0.1, 1)  # of most figures; 0.01 is recommended in section 5.4

# ---- looks -----------------------------------------------------------------------------------------------------------

# Okabe and Ito's palette, told apart with any colour vision. Vanilla and weight decay are different arms.
LOOKS = {
    "vanilla": Look(label="vanilla", color="#000000", marker="o"),
    "weight_decay": Look(label="weight decay", color="#D55E00", marker="s"),
    "syre": Look(label="syre", color="#0072B2", marker="D"),
    "syre_advanced": Look(label="syre, advanced", color="#009E73", marker="P"),
    "syre_layers": Look(label="syre, some layers", color="#332288", marker="d"),
    "w_fix": Look(label="W-fix", color="#E69F00", marker="^"),
    "w_asym": Look(label="W-asym", color="#7FBC41", marker=">"),
    "dropout": Look(label="dropout", color="#CC79A7", marker="v"),
    "l2_init": Look(label="L2 init", color="#777777", marker="X"),
    "offset": Look(label="offset start", color="#8B5A2B", marker="<"),
    "shrink_perturb": Look(label="shrink & perturb", color="#7B3294", marker="p"),
    "sigma_asym": Look(label="σ-asym", color="#E7298A", marker="*"),
    "redo": Look(label="ReDo", color="#591E00", marker="1"),
    "continual_backprop": Look(label="continual backprop", color="#000059", marker="2"),
    "self_normalized_resets": Look(label="self-normalized resets", color="#0000E6", marker="3"),
    "weight_clipping": Look(label="weight clipping", color="#BF00E6", marker="h"),
    "spectral": Look(label="spectral regularization", color="#7373E6", marker="H"),
    "noisy": Look(label="noise in the gradient", color="#468046", marker="4"),
}
SAME_START = Look(label="syre, σ = 1, start kept", color="#882255", marker="x")
NOT_SHARED = Look(label="syre, σ = 1, anchors not shared", color="#44AA99", marker="+")  # of two networks
SPARE = ("#A6761D", "#1B9E77", "#B15928", "#6A3D9A", "#5F7F00", "#8C564B")


def _ramp(decades: int, *colors: str) -> tuple[int, LinearSegmentedColormap]:
    """Shades of sigma, from 0.01 on over some decades."""
    return decades, LinearSegmentedColormap.from_list("sigma", colors)


# Of syre, by the unit of sigma and what decays: a hue each, darker where sigma is larger.
SHADES = {
    ("relative", "all"): _ramp(3, "#9CCBE8", LOOKS["syre"].color, "#00263F"),
    ("absolute", "all"): _ramp(2, "#C9B3F0", "#8A63D2", "#3F2378"),
    ("relative", "matrices"): _ramp(3, "#CFC97A", "#8F882A", "#3F3C10"),
    ("absolute", "matrices"): _ramp(2, "#F0AFC4", "#C4587E", "#5C1E36"),
}
MARKERS = {("absolute", "all"): "h", ("relative", "matrices"): "d", ("absolute", "matrices"): "d"}
DECAY_OF_MATRICES = "#F2A36B"


def look(name: str, sigma: float | None = None, *, unit: str = "relative", scope: str = "all") -> Look:
    """The look of the regularizer `name`; a sigma shades the colour of syre, of which each unit and scope has its own.

    A regularizer that has none of its own gets one that is always the same, if perhaps another's too.
    """
    spare = SPARE[crc32(name.encode()) % len(SPARE)]
    plain = LOOKS.get(name) or Look(label=name.replace("_", " "), color=spare, marker="8")
    color, marker = plain.color, plain.marker
    if name == "weight_decay" and scope == "matrices":
        color = DECAY_OF_MATRICES
    elif name == "syre" and sigma is not None:
        decades, shades = SHADES[unit, scope]
        shade = np.clip((math.log10(sigma) + 2) / decades, 0, 1) if sigma > 0 else 0.0  # the same in every figure
        color, marker = to_hex(shades(shade)), MARKERS.get((unit, scope), marker)
    said = f", {'absolute ' * (unit == 'absolute')}σ = {sigma:g}" if sigma is not None else ""
    return Look(label=plain.label + said + ", matrices alone" * (scope == "matrices"), color=color, marker=marker)


def by_arm(df: pd.DataFrame) -> Iterator[tuple[Look, pd.DataFrame]]:
    """The rows of each regularizer, with their look, in the order of `LOOKS`; one arm a sigma."""
    for name in sorted(df[NAME].unique(), key=[*LOOKS, *df[NAME]].index):
        rows = df[df[NAME] == name]
        levels = sorted(rows[SIGMA].dropna().unique())
        if not levels:
            yield look(name), rows
        for sigma in levels:
            yield look(name, sigma), rows[rows[SIGMA] == sigma]


def with_same_start(
    df: pd.DataFrame, further: Mapping[Look, pd.Series] | None = None
) -> Iterator[tuple[Look, pd.DataFrame]]:
    """`by_arm`, and apart, last, syre with the start kept, and the `further` rows that have their own look."""
    apart = {SAME_START: df[START] == "keep", **(further or {})}
    yield from by_arm(df[~np.logical_or.reduce(list(apart.values()))])
    yield from ((look, df[own]) for look, own in apart.items() if own.any())


def curves(
    ax: Axes,
    arms: Iterable[tuple[Look, pd.DataFrame]],
    x: str,
    y: str,
    *,
    within: Limits = ANY,
    nested: bool = False,
) -> None:
    """Mean and band of y over x, a line each arm; `nested`: the earlier the wider, where some lie on one another."""
    drawn = list(arms)
    for place, (own, rows) in enumerate(drawn, 1):
        line_with_band(ax, rows, x, y, own, within=within, wider=nested * (1 - place / len(drawn)))


# ---- claims ----------------------------------------------------------------------------------------------------------

LESS = ("loss", "barrier", "reconstruction", "symmetry", "low_rankness")  # is better


def ends(sigma: float | None) -> tuple[str, str]:
    """How id and text of a claim end: with sigma where it is given, and not chosen on the other seeds."""
    return (f"-{sigma:g}", f"; σ = {sigma:g}.") if sigma else ("", ".")


def less_is_better(metric: str) -> bool:
    """Whether a metric is one of losses, or of what syre is to remove."""
    return metric.split("/")[0] in LESS and metric != "reconstruction/variance"


# The smallest effects worth naming; a claim about something else argues for its own.
POINT = 0.01  # of accuracy


def width(n: int, share: float = 0.05) -> float:
    """The smallest difference of ranks worth naming: a share of the n units of the layer."""
    return share * n


def tuned(results: Results, metric: str, arm: Arm) -> pd.Series:
    """`results.by_seed`, with an open sigma at the one that is best on the other seeds, by `by` if the arm has one."""
    by = str(arm.get(BY, metric))
    rows = results.final(*dict.fromkeys((metric, by)), **{column: arm[column] for column in arm if column != BY})
    several = [SIGMA] if rows[SIGMA].nunique() > 1 else []
    one_run_each(rows.drop(columns={by} - {metric}), metric, "seed", *several)
    return at_best(rows, metric, SIGMA, by=by, maximize=not less_is_better(by))


def final(metric: str, arm: Arm, less: float = 0.0) -> Samples:
    """The metric at the end of the runs of an arm, less a level; sigma is open only where the arm has a `by`."""
    return lambda results: (tuned(results, metric, arm) if BY in arm else results.by_seed(metric, arm)) - less


def difference(metric: str, treatment: Arm, control: Arm) -> Samples:
    """The metric of one arm minus that of another, seed by seed."""
    return lambda results: paired_differences(*(tuned(results, metric, arm) for arm in (treatment, control)))


def minus(samples: Samples) -> Samples:
    """The samples with the other sign."""
    return lambda results: -samples(results)


def gain(metric: str, treatment: Arm, control: Arm) -> Samples:
    """How much better the metric is, seed by seed, with one arm than with another."""
    more = difference(metric, treatment, control)
    return minus(more) if less_is_better(metric) else more


@per_seed
def tau(results: Results, metric: str, arm: Arm, over: str) -> pd.Series:
    """How steadily (Kendall's tau) a metric rises along a column."""
    rows = results.final(metric, **arm).dropna(subset=[over])
    return monotonicity(one_run_each(rows, metric, "seed", over), over, metric)


@per_seed
def grown(results: Results, metric: str, arm: Arm, after: int = -1) -> pd.Series:
    """A metric at the end, less that at the first record after a step; NaN for a run that has failed."""
    curve = results.curve(metric, **arm).query("step > @after").sort_values("step")
    return results.by_seed(metric, arm) - curve.groupby("seed")[metric].first()


def beats(
    id: str, text: str, source: str, metric: str, treatment: Arm, control: Arm, margin: float = 0.0, **options: Any
) -> Superiority:
    """The treatment ends with the better metric, by more than a margin if one is given."""
    return Superiority(id, text, source, gain(metric, treatment, control), margin=margin, **options)


def costs(
    id: str, text: str, source: str, metric: str, treatment: Arm, control: Arm, margin: float, **options: Any
) -> NonInferiority:
    """The treatment ends with a metric that is worse by less than the margin, or better."""
    return NonInferiority(id, text, source, gain(metric, treatment, control), margin=margin, **options)


def same(
    id: str, text: str, source: str, metric: str, treatment: Arm, control: Arm, margin: float, **options: Any
) -> Equivalence:
    """Both end with the same metric, within the margin."""
    return Equivalence(id, text, source, difference(metric, treatment, control), margin=margin, **options)


def rises(
    id: str, text: str, source: str, metric: str, arm: Arm, over: str, margin: float = 0.5, **options: Any
) -> Monotone:
    """The metric rises along a column: its tau exceeds the margin."""
    return Monotone(id, text, source, tau(metric, arm, over), margin=margin, **options)


def falls(
    id: str, text: str, source: str, metric: str, arm: Arm, over: str, margin: float = 0.5, **options: Any
) -> Monotone:
    """The metric falls along a column: its tau is below the negative margin."""
    return Monotone(id, text, source, minus(tau(metric, arm, over)), margin=margin, **options)
