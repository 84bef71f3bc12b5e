"""Figure 5 (section 6.3): rank of the last hidden layer against weight decay and against the input scale."""

import pandas as pd
from matplotlib.figure import Figure

from experiments.analysis import arms, plotting
from experiments.analysis.arms import (
    ALPHA,
    GAMMA,
    NAME,
    POINT,
    SIGMA,
    VANILLA,
    arm,
    beats,
    costs,
    decay,
    falls,
    final,
    gain,
    minus,
    per_seed,
    rises,
    syre,
    tuned,
    width,
)
from experiments.analysis.claims import Claim, Samples, Superiority
from experiments.analysis.notes import Numbers
from experiments.analysis.results import Arm, Results, select
from experiments.analysis.stats import cross_fitted_best, paired_differences
from experiments.analysis.summaries import Finding
from experiments.analysis.words import interval, mean, percent

TITLE = "feature collapse on MNIST: rank and accuracy over weight decay and input scale"

DECIDES = "accuracy"  # the best sigma is the most accurate, whatever is judged
WIDTH = 300
# Of what is judged: its name, the smallest effect worth naming, and that in words.
JUDGED = {
    "accuracy": ("accuracy", POINT, "a point"),
    "rank": ("rank", width(WIDTH), "5 % of the width"),
    "rank/effective": ("effective rank", width(WIDTH), "5 % of the width"),
}
WHOLE = {ALPHA: 1.0}
STRONG, STRONGEST, MILD = {GAMMA: 0.1, **WHOLE}, {GAMMA: 0.3, **WHOLE}, {GAMMA: 1e-4, **WHOLE}
FAINT = {GAMMA: 1e-3, ALPHA: 0.01}  # the smallest inputs
PLACES = {
    "gamma": ("under strong decay (γ = 0.1, α = 1)", STRONG),
    "0.3": ("under the strongest decay (γ = 0.3, α = 1)", STRONGEST),
    "alpha": ("on small inputs (α = 0.01, γ = 0.001)", FAINT),
}


def _beats(
    id: str,
    metric: str,
    place: str,
    rival: str = "decay",
    sigma: float | None = None,
    start: str = "shift",
    ours: bool = True,
) -> Superiority:
    """syre, at the best sigma or at a given one, against decay alone or a rival, at one place."""
    where, at = PLACES[place]
    control, name = {
        "decay": (decay(at), "weight decay alone"),
        "no decay": (VANILLA | {ALPHA: at[ALPHA]}, "no decay at all"),
        "w_fix": (arm("w_fix", at), "W-fix"),
    }[rival]
    more, margin, least = JUDGED[metric]
    same_start = "" if start == "shift" else ", from the start of weight decay alone,"
    which = f"σ = {sigma:g}" if sigma else "best σ"
    text = f"syre ({which}){same_start} has a higher {more} than {name} {where}, by more than {least}."
    treatment = syre(at, sigma=sigma, start=start, by="" if sigma else DECIDES)
    return beats(id, text, "ours" if ours else "6.3", metric, treatment, control, margin)


@per_seed
def _at_the_best(results: Results) -> pd.Series:
    """The accuracy of syre at the gamma and sigma that are best on the other seeds, less that of no decay at all."""
    rows = results.final(DECIDES, **syre(WHOLE))
    settings = rows.groupby([GAMMA, SIGMA]).ngroup()
    best = cross_fitted_best(rows.assign(settings=settings), metric=DECIDES, over="settings")[DECIDES]
    return paired_differences(best, results.by_seed(DECIDES, VANILLA | WHOLE))


FALLS = "With weight decay alone (α = 1) the rank of the last hidden layer falls as γ grows."
SHRINK = "With weight decay alone (γ = 0.001) the rank of the last hidden layer falls as the inputs shrink."
FULL = (
    "syre's rank under strong decay (γ = 0.1, best σ) is not below that of weight decay alone under mild decay "
    "(γ = 1e-4) by 5 % of the width or more."
)
COST = "Under mild decay (γ = 1e-4) syre with σ = 0.01 costs less than half a point of accuracy."
BEST = "syre at its best γ and σ (α = 1) is more accurate than no decay at all, by more than a point."
CLAIMS: tuple[Claim, ...] = (
    falls("collapse-gamma", FALLS, "6.3", "rank", decay(WHOLE), GAMMA),
    rises("collapse-alpha", SHRINK, "6.3", "rank", decay(gamma=1e-3), ALPHA),
    *(
        _beats(f"{metric}-{place}{key}", metric, place, sigma=sigma, ours=False)
        for place in ("gamma", "alpha")
        for key, sigma in (("", None), ("-0.01", 0.01))
        for metric in ("rank", "accuracy")
    ),
    _beats("rank-effective", "rank/effective", "gamma"),
    _beats("accuracy-0.3", "accuracy", "0.3", ours=False),
    _beats("effective-0.3", "rank/effective", "0.3"),
    _beats("accuracy-keep-0.3", "accuracy", "0.3", sigma=1, start="keep"),
    costs("full-rank", FULL, "6.3", "rank", syre(STRONG, by=DECIDES), decay(MILD), width(WIDTH)),
    costs("cost-0.01", COST, "5.4", "accuracy", syre(MILD, sigma=0.01), decay(MILD), POINT / 2),
    *(
        _beats(f"{metric}-{key}{end}", metric, place, rival)
        for rival, key in (("w_fix", "w-fix"), ("no decay", "no-decay"))
        for place, end in (("gamma", ""), ("alpha", "-alpha"))
        for metric in ("rank", "accuracy")
    ),
    _beats("accuracy-no-decay-0.01", "accuracy", "gamma", "no decay", sigma=0.01),
    _beats("accuracy-no-decay-alpha-0.01", "accuracy", "alpha", "no decay", sigma=0.01),
    Superiority("accuracy-no-decay-best", BEST, "ours", _at_the_best(), margin=POINT),
)
RETIRED = {
    "rank-threshold": "the comparison of rank-gamma by another rank: in the picture",
    "rank-dropout": "W-fix is the stronger rival: rank-w-fix; dropout is in the picture",
    "rank/effective-keep-0.3": "accuracy-keep-0.3 says it",
}

RANKS = {"rank": "rank (of 300), numerical", "rank/0.001": "rank, eigenvalues > 1e-3 of top"}
METRICS = RANKS | {"accuracy": "test accuracy (logit)"}
ACCURACIES = (0.1, 0.3, 0.5, 0.7, 0.85, 0.9, 0.95, 0.97, 0.98)  # ticks


def notes(results: Results) -> str:
    say = Numbers(results)
    rank, effective = say.final("rank"), say.final("rank/effective")
    best, none = syre(FAINT, by=DECIDES), VANILLA | {ALPHA: FAINT[ALPHA]}

    def won(at: Arm, sigma: float, unit: str = "relative", scope: str = "all") -> Samples:
        return gain("accuracy", syre(at, sigma=sigma, unit=unit, scope=scope), decay(at, scope=scope))

    def wins(at: Arm, sigma: float, unit: str = "relative", scope: str = "all") -> str:
        return say.interval(won(at, sigma, unit, scope), 1, times=100)

    def loses(at: Arm, sigma: float, unit: str = "relative") -> str:
        return say.interval(minus(won(at, sigma, unit)), 1, times=100)

    def has(arm: Arm, digits: int = 0) -> str:
        return say.mean(final("accuracy", arm), digits, times=100)

    def more(one: Arm, other: Arm) -> str:
        return say.mean(gain("accuracy", one, other), 1, times=100)

    def apart(results: Results) -> str:
        """By how much a gain differs where the weight matrices alone decay, at most: at strong decay."""
        units = ((0.1, "absolute"), (1, "relative"))
        several = [(STRONG, s, u) for s, u in (*units, (0.01, "relative"), (0.01, "absolute"))]
        several += [(STRONGEST, s, u) for s, u in units]
        pairs = [[won(*of, scope)(results).mean() for scope in ("all", "matrices")] for of in several]
        return mean(max(abs(one - other) for one, other in pairs), 1, times=100)

    chance, faintest = has(decay(STRONGEST)), syre(STRONGEST, sigma=0.01)
    tenth = syre(STRONGEST, sigma=0.1)
    return f"""
**What it shows.** The collapse is there: with decay alone the rank and the accuracy fall as γ grows, to one dimension
and chance ({chance} %) at γ = 0.3, and the rank falls as the inputs shrink. syre removes it, and the anchor does the
work: from the same start as decay alone (`start="keep"`) it is as good as from Eq. (6)'s start. But it takes σ near the
initial scale (1 or 3 in units of 1/√fan_in). At the recommended σ = 0.01, and at 0.1, syre collapses with decay alone
at γ = 0.3. On small inputs decay alone loses rank but little accuracy in five epochs, and so there is little accuracy
for syre to win back: {more(best, decay(FAINT))} points.

**No decay at all** does not collapse. It is {more(VANILLA | WHOLE, syre(STRONG, by=DECIDES))} points more accurate than
the best syre at γ = 0.1, {more(none, best)} points more on small inputs, and as accurate as syre at its best γ and σ.
syre undoes what strong decay does; what it has over no decay is rank:
{say.mean(lambda results: tuned(results, "rank", best))} against {rank(none)} on small inputs.

**The unit of σ, and what decays** (n = 5; against decay alone). At γ = 0.1 (decay alone {has(decay(STRONG), 1)} %)
relative σ = 0.01 wins {wins(STRONG, 0.01)} points, absolute 0.01 {wins(STRONG, 0.01, "absolute")}, absolute 0.1
{wins(STRONG, 0.1, "absolute")}, relative 1 {wins(STRONG, 1)}, absolute 1 {wins(STRONG, 1, "absolute")}. At γ = 0.3
(decay alone at chance) both 0.01 stay at chance, though absolute 0.01 has an effective rank of
{effective(syre(STRONGEST, sigma=0.01, unit="absolute"))}; absolute 0.1 has
{has(syre(STRONGEST, sigma=0.1, unit="absolute"))}, relative 1 {has(syre(STRONGEST, sigma=1))} and absolute 1
{has(syre(STRONGEST, sigma=1, unit="absolute"))} %. Under mild decay (γ = 1e-4) absolute 0.1 costs
{loses(MILD, 0.1, "absolute")} points and absolute 1 {more(decay(MILD), syre(MILD, sigma=1, unit="absolute"))}, relative
1 nothing. On small inputs (α = 0.01; {has(decay(FAINT), 1)} %) absolute 0.1 wins {wins(FAINT, 0.1, "absolute")} points,
relative 1 {wins(FAINT, 1)}, absolute 1 loses {loses(FAINT, 1, "absolute")}. With the weight matrices alone decaying,
each gain under strong decay is the same within {say.told(apart)} points, on small inputs a little larger:
{wins(FAINT, 0.1, "absolute", "matrices")} and {wins(FAINT, 1, scope="matrices")}. At fan-ins of 300 and 784 absolute
0.1 is relative 1.7 to 2.8.

**Ranks need care.** At γ = 0.3, σ = 0.1 is at chance and yet has a numerical rank of {rank(tenth)}, σ = 0.01
{say.mean(final("rank/0.001", faintest))} eigenvalues above 1e-3 of the top: counting ranks are relative, and count what
the anchors leave of a representation that has shrunk to nothing. The effective rank ({effective(tenth)} and
{effective(faintest)}) and the accuracy say it has collapsed.

**Unknown, and chosen.** Four-layer FCN, 300 units, batch 64, MNIST and "vanilla with the same γ" are the paper's. Not
printed:
- Adam at 1e-3 with coupled decay; 5 epochs at `cpu` scale (50 at `paper`), the last partial batch of each left out.
- Pixels standardised (mean 0.1307, std 0.3081), then times α.
- γ is torch's `weight_decay`. The α panel is at γ = 0.001, where α = 1 is mild.
- Rank: numerical (tolerance of `matrix_rank`), and covariance eigenvalues above 1e-2, 1e-3 and 1e-4 of the top one;
  the effective rank, stable rank and 99 % rule are in the table too. Last hidden layer, test set.
- W-fix: 10 % of each row at κ = 0.05, about the initial scale; dropout 0.2, both with the decay of their column.
  Vanilla has none.

**Edits after the first results** (weight decay alone up to γ = 0.1, where it had not fully collapsed): γ = 0.3 and
the arm with `start="keep"` were added, α = 0.3 dropped, and with them the claims named *-0.3; no committed claim was
changed or removed. Later σ = 0.001, 0.3 and 10 were added at γ = 1e-4 and 0.3 for the map over σ (`sigma_map`); the
claims at γ = 0.3 that choose σ on other seeds now choose among these too. Last, with all results known, the claims got
their smallest effects (a point of accuracy, 5 % of the 300 units of rank), and one σ for all metrics.

**The best σ** is, for each seed, the one with the highest mean accuracy on the other four, also where a rank is judged.

**Cost.** The runs shared their two cores with other work for most of the time; their seconds are upper bounds.
"""


def draw(results: Results) -> Figure:
    results = arms.usual(results)
    figure, axes = plotting.panels(2, 3, width=3.8, height=2.5)
    table = results.final(*METRICS)
    table = table[~table[SIGMA].isin([0.001, 0.3, 10])]  # measured at two γ only, for the map over σ
    vanilla = table[NAME] == "vanilla"
    sides = (
        (select(table[~vanilla], **{ALPHA: 1.0}), GAMMA, "weight decay γ"),
        (table[vanilla | (table[GAMMA] == 1e-3)], ALPHA, "input scale α"),
    )
    for column, (rows, x, label) in enumerate(sides):
        for row, (metric, name) in enumerate(METRICS.items()):
            ax = axes[2 * row + column]
            within = (0, WIDTH) if metric in RANKS else (0, 1)
            arms.curves(ax, arms.with_same_start(rows), x, metric, within=within)
            if x == GAMMA:
                mean = select(table, **VANILLA, **{ALPHA: 1.0})[metric].mean()
                plotting.level(ax, mean, arms.look("vanilla"), "γ")
            ax.set(xscale="log", xlabel=label if row == len(METRICS) - 1 else "", ylabel="" if column else name)
            if metric in RANKS:
                ax.set_ylim(0, None)
            else:  # collapse and tenths of a per cent on one axis
                ax.set(yscale="logit", ylim=(0.09, 0.985))
                ax.set_yticks(ACCURACIES, [f"{level:g}" for level in ACCURACIES])
                ax.minorticks_off()
    axes[0].set_title("α = 1")
    axes[1].set_title("γ = 0.001")
    return plotting.with_legend(figure)


def finding(results: Results) -> Finding:
    """What the strongest decay leaves, of each arm."""

    def at(metric: str, sigma: float | None = None) -> pd.Series:
        return final(metric, syre(STRONGEST, sigma=sigma) if sigma else decay(STRONGEST))(results)

    none = final("accuracy", VANILLA | WHOLE)(results)
    return Finding(
        f"At γ = 0.3 decay alone ends with rank {mean(at('rank'))} of {WIDTH} and {percent(at('accuracy'))} "
        f"accuracy, syre at σ = 1 with rank {mean(at('rank', 1))} and {percent(at('accuracy', 1))}, at the "
        f"recommended σ = 0.01 with {percent(at('accuracy', 0.01))}; no decay at all has {percent(none)}.",
        "decay alone collapses, syre keeps full rank",
        f"rank {interval(at('rank', 1))} against {interval(at('rank'))} of {WIDTH}",
    )
