"""Figure 12 (section B.5): rank and accuracy of a vision transformer against weight decay and the input scale."""

from dataclasses import replace

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis import arms, plotting
from experiments.analysis.arms import (
    ALPHA,
    GAMMA,
    NAME,
    POINT,
    SCOPE,
    START,
    VANILLA,
    arm,
    beats,
    costs,
    decay,
    difference,
    falls,
    final,
    rises,
    syre,
    width,
)
from experiments.analysis.claims import Claim, Equivalence, Monotone, Samples, Superiority
from experiments.analysis.notes import Numbers
from experiments.analysis.results import Arm, Results, select
from experiments.analysis.stats import cross_fitted_best, paired_differences
from experiments.analysis.summaries import Finding
from experiments.analysis.words import interval, percent, span

TITLE = "a vision transformer on CIFAR-10: rank and accuracy over weight decay and input scale"

OPEN = [arms.SIGMA, GAMMA, "regularizer.fraction", "regularizer.kappa"]  # what is chosen on the other seeds
STRONG, FAINT, MILD = {GAMMA: 1, ALPHA: 1}, {GAMMA: 0.1, ALPHA: 1e-3}, {GAMMA: 0.01, ALPHA: 1}
WHOLE = {ALPHA: 1}
WIDTH = 64
METRICS = {"rank": "rank", "rank/effective": "effective rank", "accuracy": "accuracy"}
SOURCES = {"rank": "B.5", "rank/effective": "ours", "accuracy": "B.5"}
MARGINS = {"rank": width(WIDTH), "rank/effective": width(WIDTH), "accuracy": POINT}
_NAMED = {"rank": "5 % of the width", "rank/effective": "5 % of the width", "accuracy": "a point"}


def _best(results: Results, metric: str, arm: Arm, by: str = "accuracy") -> pd.Series:
    """The metric of each seed at the settings (of those the arm leaves open) that are best by `by` on other seeds."""
    rows = results.final(*dict.fromkeys((metric, by)), **arm)
    settings = rows.groupby(OPEN, dropna=False).ngroup()
    return cross_fitted_best(rows.assign(settings=settings), metric=metric, by=by, over="settings")[metric]


def _beats(
    metric: str, key: str, text: str, treatment: Arm, control: Arm, source: str = "", scale: str = "smoke"
) -> Superiority:
    """Higher by a smallest effect, each arm at its most accurate settings; {} in the text is what the metric is."""
    id, words = f"{metric.removeprefix('rank/')}-{key}", text.format(METRICS[metric])
    gain = lambda results: paired_differences(*(_best(results, metric, a) for a in (treatment, control)))  # noqa: E731
    words = f"{words}, by more than {_NAMED[metric]}."
    return Superiority(id, words, source or SOURCES[metric], gain, margin=MARGINS[metric], scale=scale)


def _at(place: str, where: str, at: Arm) -> tuple[Claim, ...]:
    """What is claimed of syre at one place."""
    alone, faint, undecayed = decay(at), syre(at, sigma=0.01), VANILLA | {ALPHA: at[ALPHA]}
    w_asym = f"{where} syre at its best σ has a higher {{}} than W-asym at the best of its grid"
    recommended = f"{where} syre at the recommended σ = 0.01 has a higher {{}}"
    tuned = f"{where} syre at its best σ has a higher {{}}"
    return (
        *(_beats(m, place, f"{tuned} than weight decay alone", syre(at), alone) for m in METRICS),
        _beats("accuracy", f"{place}-0.01", f"{recommended} than weight decay alone", faint, alone),
        *(_beats(m, f"{place}-w-asym", w_asym, syre(at), arm("w_fix", at)) for m in ("rank/effective", "accuracy")),
        _beats("accuracy", f"{place}-sigma-asym", f"{tuned} than σ-asym", syre(at), arm("sigma_asym", at)),
        _beats("accuracy", f"{place}-no-decay", f"{tuned} than no decay", syre(at), undecayed, "ours"),
    )


def _under_strong_decay() -> tuple[Claim, ...]:
    """What more is claimed at γ = 1, where syre is not at chance."""
    faint = "At γ = 1 syre at the recommended σ = 0.01 has a higher {} than weight decay alone"
    start = "At γ = 1 syre at σ = 1 has a higher {} than weight decay alone from the same start"
    kept = syre(STRONG, sigma=1, start="keep")
    none = "At γ = 1 syre at the recommended σ = 0.01 has a higher {} than no decay"
    recommended, undecayed = syre(STRONG, sigma=0.01), VANILLA | WHOLE
    return (
        *(_beats(m, "gamma-0.01", faint, recommended, decay(STRONG)) for m in ("rank", "rank/effective")),
        _beats("accuracy", "gamma-no-decay-0.01", none, recommended, undecayed, "ours"),
        *(_beats(m, "gamma-keep", start, kept, decay(STRONG), "ours") for m in ("rank/effective", "accuracy")),
    )


def _collapses(metric: str, along: str) -> Monotone:
    id, source = f"{metric.removeprefix('rank/')}-falls-{along}", SOURCES[metric]
    if along == "alpha":
        text = f"With weight decay alone (γ = 0.1) the {METRICS[metric]} falls as inputs shrink, from α = 1 to 0.001."
        return rises(id, text, source, metric, decay(gamma=0.1), ALPHA)
    text = f"With weight decay alone the {METRICS[metric]} falls as γ grows, from 0.01 to 1."
    return falls(id, text, source, metric, decay(WHOLE), GAMMA)


def _full_rank(results: Results) -> pd.Series:
    """Of the width: the rank of syre under strong decay, less that of vanilla."""
    width = results.runs["model.dim"].max()
    vanilla = results.by_seed("rank", VANILLA | WHOLE)
    return paired_differences(_best(results, "rank", syre(STRONG)), vanilla) / width


def _most_accurate(name: str, what: str) -> Superiority:
    text = f"Trained to the end, syre at its best γ and σ has a higher {{}} than {what}"
    return _beats("accuracy", f"best-{name}", text, syre(WHOLE), arm(name, WHOLE), scale="paper")


BARE = {"matrices": "If the weight matrices alone decay", "weights": "If the weights alone decay, not the tokens"}


def _bare(scope: str, metric: str, margin: float, sigma: float, unit: str, control: str) -> Superiority:
    """syre with anchors, and decay, of the matrices alone, or of the weights alone, on the smallest inputs."""
    reading = f"σ = {sigma:g} {unit}"
    than, more = "no decay" if control == "vanilla" else "decay alone of them", f"by more than {_NAMED[metric]}"
    text = f"{BARE[scope]}, syre ({reading}) has a higher {METRICS[metric]} than {than} at α = 0.001"
    treatment = syre(FAINT, sigma=sigma, unit=unit, scope=scope)
    other = VANILLA | {ALPHA: 1e-3} if control == "vanilla" else decay(FAINT, scope=scope)
    key = f"{scope}-{metric.removeprefix('rank/')}-{unit}-{sigma:g}-{control}"
    return beats(key, f"{text}, {more}.", "B.5", metric, treatment, other, margin)


DECIDING = tuple(  # what decays, on small inputs
    _bare(scope, metric, margin, sigma, unit, control)
    for scope in BARE
    for metric, margin in (("accuracy", POINT), ("rank/effective", width(64)))
    for control in ("decay", "vanilla")
    for sigma, unit in ((0.01, "relative"), (1, "relative"), (0.01, "absolute"), (0.1, "absolute"))
)
FULL = "At γ = 1 syre at its best σ has the rank of no decay, within 10 % of the width."
COST = "At the mild γ = 0.01 syre at the recommended σ = 0.01 costs less than a point of accuracy."
LEVEL = "Without decay, at full size and length, the accuracy is the 80 % of the cited repository, within two points."
LEVEL_OF = final("accuracy", VANILLA | WHOLE, less=0.8)
CLAIMS: tuple[Claim, ...] = (
    *(_collapses(metric, along) for along in ("gamma", "alpha") for metric in ("rank", "accuracy")),
    *_at("gamma", "At γ = 1", STRONG),
    *_under_strong_decay(),
    *_at("alpha", "At α = 0.001 (γ = 0.1)", FAINT),
    Equivalence("full-rank", FULL, "B.5", _full_rank, margin=0.1),
    costs("cost-0.01", COST, "5.4", "accuracy", syre(MILD, sigma=0.01), decay(MILD), POINT),
    _most_accurate("vanilla", "no decay"),
    _most_accurate("weight_decay", "weight decay alone at its best γ"),
    _most_accurate("w_fix", "W-asym at the best of its grid and γ"),
    _most_accurate("sigma_asym", "σ-asym at its best γ"),
    Equivalence("level", LEVEL, "ours", LEVEL_OF, margin=0.02, paper="0.80", scale="paper"),
    *DECIDING,
)

_CHANCE = "left out: at α = 0.001 syre is at chance with every σ and start (accuracy-alpha)"
_REPEATS = "repeats {}: where every σ is at chance the best is 0.01"
RETIRED = {
    "effective-falls-gamma": "left out: rank-falls-gamma and accuracy-falls-gamma say it of what the paper shows",
    "effective-falls-alpha": "left out: rank-falls-alpha and accuracy-falls-alpha say it of what the paper shows",
    "effective-gamma-sigma-asym": "repeats effective-gamma: σ-asym has the effective rank of weight decay alone",
    "effective-alpha-sigma-asym": "repeats effective-alpha: σ-asym has the effective rank of weight decay alone",
    "rank-alpha-0.01": _REPEATS.format("rank-alpha"),
    "effective-alpha-0.01": _REPEATS.format("effective-alpha"),
    "effective-alpha-keep": _CHANCE,
    "accuracy-alpha-keep": _CHANCE,
}


def notes(results: Results) -> str:
    say = Numbers(results)
    rank, accuracy, digits = say.final("rank/effective"), say.final("accuracy", 2), say.final("accuracy", 3)

    def both(arm: Arm) -> str:
        return f"{rank(arm)}, {accuracy(arm)}"

    def bare(scope: str, sigma: float, unit: str = "relative") -> tuple[Arm, Samples]:
        """An arm on the smallest inputs where not all parameters decay, and its accuracy less that of decay alone."""
        arm = syre(FAINT, sigma=sigma, unit=unit, scope=scope)
        return arm, difference("accuracy", arm, decay(FAINT, scope=scope))

    def seeds(arm: Arm) -> str:
        each = say.told(lambda results: span(results.by_seed("accuracy", arm), 3))
        return f"{digits(arm)} ({each})"

    def gentler(sigma: float, unit: str = "relative") -> str:
        arm = syre(STRONG, sigma=sigma, unit=unit)
        return f"{digits({**arm, SCOPE: 'matrices'})} ({digits(arm)})"

    (one, by_one), (tenth, by_tenth) = bare("matrices", 1), bare("matrices", 0.1, "absolute")
    (free, by_free), (apart, by_apart) = bare("weights", 1), bare("weights", 0.1, "absolute")
    middle, tiny = {GAMMA: 0.1, ALPHA: 0.1}, VANILLA | {ALPHA: FAINT[ALPHA]}
    ones = say.mean(final("rank/effective", syre(FAINT, sigma=1)), 2)
    w_asym = say.mean(lambda results: _best(results, "accuracy", arm("w_fix", FAINT)), 2)
    return f"""
**What it shows.** Over γ the paper's picture: decay alone goes from effective rank {rank(decay(MILD))} of 64 and
accuracy {accuracy(decay(MILD))} at γ = 0.01 to {say.mean(final("rank/effective", decay(STRONG)), 1)} and
{accuracy(decay(STRONG))} at γ = 1, syre at σ = 1 from {rank(syre(MILD, sigma=1))} and {accuracy(syre(MILD, sigma=1))}
to {rank(syre(STRONG, sigma=1))} and {accuracy(syre(STRONG, sigma=1))}, and just as well from the start of decay alone
({both(syre(STRONG, sigma=1, start="keep"))}); its numerical rank is full throughout. W-asym does as well as syre, with
a little more effective rank; σ-asym does as decay alone. σ = 0.01 raises the counting rank at γ = 1, and nothing else.
No decay at all is as accurate ({digits(VANILLA | WHOLE)}) as the best arm of syre ({digits(syre(MILD, sigma=1))}, at γ
= 0.01), and far better than any arm at γ = 1.

Over α it is not the paper's picture. syre (σ = 1) helps down to α = 0.1 ({both(syre(middle, sigma=1))} against
{both(decay(middle))}), hardly at 0.01, and at 0.001 it is at chance ({accuracy(syre(FAINT, sigma=1))}) as decay alone
is, whatever σ (effective rank {ones} and {say.mean(final("rank/effective", decay(FAINT)), 2)}). Its anchored decay
holds the weights of the patches near small random values, which a faint image would have to outgrow, and its anchored
positions outshine the image. That W-asym keeps {w_asym} there, where vanilla has {accuracy(tiny)}, is in line with
this: three tenths of its patch weights are frozen at three times their initial scale (0.07).

**What decays: the contradiction, and what decided it.** The failure over α might be that of what decays. Trials had
syre at 0.25 at α = 0.001 where "the matrices alone" decay. On five seeds, with the parameters of two and more
dimensions alone decaying and anchored, it is at chance as before (accuracy {digits(one)} at σ = 1 relative,
{digits(tenth)} at 0.1 absolute, decay alone {digits(decay(FAINT, scope="matrices"))}; differences
{say.interval(by_one, 3)} and {say.interval(by_tenth, 3)}). What matters are the tokens (positions and class token),
which have two dimensions too and had been free in the trials: anchored, the positions outshine so faint an image. With
the tokens free as well (`scope: weights`), on five fresh seeds, syre leaves chance by more than a point in
{say.count(by_free, above=POINT)} of them with σ = 1 relative, at {seeds(free)}, and in
{say.count(by_apart, above=POINT)} with 0.1 absolute, at {seeds(apart)}; decay alone is at
{digits(decay(FAINT, scope="weights"))}. The differences, {say.interval(by_free, 3)} and {say.interval(by_apart, 3)},
are open at a point's margin, as some seeds have just begun to escape after 620 steps. σ = 0.01 stays at chance in
either unit and every scope. No decay is at {accuracy(tiny)} in all of this. So over α the paper's picture holds in
part, for a bias near the initial scale and without decay of the tokens, and nothing of it surpasses no decay. At γ = 1
the matrices alone are gentler on all arms: decay alone {digits(decay(STRONG, scope="matrices"))}
({digits(decay(STRONG))} with all parameters), σ = 1 {gentler(1)}, σ = 0.1 absolute {gentler(0.1, "absolute")}, σ = 0.01
absolute {gentler(0.01, "absolute")}; no decay {digits(VANILLA | WHOLE)}.

**How to read it.** Of the last hidden layer (the class token after the last norm, test set): the numerical rank and
the effective rank. The counting ranks are relative, and count what the anchors leave of a representation that has
shrunk to nothing (figure 5): the effective rank and the accuracy say whether it has collapsed. In the claims the best σ
(of 0.01, 0.1 and 1), and the best of W-asym's grid, is for each seed the most accurate one on the other seeds, the same
for every metric: at γ = 1 that is σ = {say.best("accuracy", syre(STRONG))}; at α = 0.001, where all are at chance,
{say.best("accuracy", syre(FAINT))}. In the picture W-asym is the best of its grid for each metric by itself. The
smallest effects worth naming (a point of accuracy, 5 % of the width) were set after the results were known, but for the
claims `matrices-*` and `weights-*`, which were committed before their runs. Dotted: vanilla, which has no γ; in the
right column too it has none. "No decay" is vanilla at the α of the row.

**Unknown, and chosen.** "Similar to Section 6.3", CIFAR-10 times α, γ and α varied, "recommended hyperparameters" for
σ-asym, W-asym with the same settings in each layer and a grid search are the paper's. Not printed:
- Model and training at `paper` scale: those of the repository that the paper cites (kentaroy47's
  vision-transformers-cifar10: patch 4, dim 512, depth 6, 8 heads, MLP 512, dropout 0.1, Adam 1e-4, batch 512, 200
  epochs, cosine, RandAugment; it states 80 %). The network is torchvision's VisionTransformer, which starts the
  positions at std 0.02 (there 1), and the last layer and the class token at 0. Decay is coupled, on all parameters. No
  run at `paper` scale has been made.
- `cpu` scale: patch 8, dim 64, depth 4, 4 heads, MLP 128, Adam 1e-3, 4,000 images drawn from the seed, 10 epochs of
  batch 64 (620 steps), 2,000 test images, no augmentation, no dropout: so short a run does not overfit (pilot, seed
  100, γ = 0.01: accuracy 0.370 without, 0.301 with crops, flips and dropout 0.1). fp32: at this width bf16 is slower
  (900 against 2,000 images a second and core).
- γ is torch's `weight_decay`. The collapse of decay alone (pilot, seed 100; effective rank, numerical rank, accuracy):
  γ = 0.01 20, 64, 0.370; 0.1 6.7, 48, 0.313; 0.3 3.7, 24, 0.256; 1 2.9, 22, 0.225; vanilla 40, 64, 0.386.
- α multiplies the standardised pixels. A norm in each block hides it: at γ = 0.01 α = 0.1 and 0.01 change nothing
  (pilot: effective rank 22 and 20, accuracy 0.376 and 0.362). The right column is at γ = 0.1: α = 1 6.7, 48, 0.313;
  0.01 4.2, 29, 0.269; 0.001 1.0, 1, 0.097, where vanilla (no decay) still learns: 22, 64, 0.324.
- W-asym is `w_fix`: a fraction of each row of each matrix (patches, query-key-value, MLP, output; not the tokens,
  biases or norms) frozen at κ N(0, 1). Grid at `cpu` scale: fraction 0.1, 0.3 and κ 0.1, 0.25, near the initial scale
  (0.07 to 0.125); at γ = 0.3 larger ones did worse (fraction, κ, accuracy; pilot, seed 100): 0.05, 0.25 0.331; 0.1,
  0.25 0.338; 0.4, 0.25 0.296; 0.05, 1 0.269; 0.4, 1 0.135.
- σ-asym replaces the GELU of each MLP block by σ(Cx) x with C ~ N(0, 1) and no scaling, as Lim et al. have it in their
  MLP. There a norm precedes it; here a linear layer stands between the norm and the activation, and where decay shrinks
  that layer the gate opens half and the block becomes linear. It leaves the rotations of queries and keys.
- σ: relative to 1/√fan_in. Positions and class token have the width of a token as their fan-in, so that at σ = 1 they
  get an anchor (std 0.125 at width 64) six times their initial scale, which at small α hides the image (pilot, seed
  100, γ = 0.1; effective rank, accuracy): α = 0.001, σ = 1 1.1, 0.105; α = 0.01, σ = 0.1 9.0, 0.284, σ = 1 9.8, 0.253.

"syre is the most accurate" and the level of 80 % are for a network trained to the end, and `not tested` below `paper`
scale; so are the best settings over γ.
"""


W_ASYM = replace(arms.look("w_asym"), label="W-asym, best of a grid")
AXES = {"rank": "rank, numerical", "rank/effective": "effective rank", "accuracy": "test accuracy"}


def _panel(ax: Axes, results: Results, metric: str, at: Arm, over: str) -> None:
    table = results.final(metric, **at)
    within = (0, 1 if metric == "accuracy" else WIDTH)
    rows = table[~table[NAME].isin(["w_fix", "vanilla"])]
    arms.curves(ax, arms.by_arm(rows[rows[START] != "keep"]), over, metric, within=within)
    grid = [(x, arm("w_fix", at, {over: x})) for x in select(table, **arm("w_fix"))[over].unique()]
    w_asym = [_best(results, metric, settings, metric).reset_index().assign(**{over: x}) for x, settings in grid]
    plotting.line_with_band(ax, pd.concat(w_asym), over, metric, W_ASYM, within=within)
    for _, points in rows[rows[START] == "keep"].groupby(over):  # no line: few places
        plotting.line_with_band(ax, points, over, metric, arms.SAME_START)


def draw(results: Results) -> Figure:
    results = arms.usual(results)
    figure, axes = plotting.panels(2, 3, width=3.8, height=2.4)
    vanilla = results.final(*AXES, **VANILLA)
    black = arms.look("vanilla")
    for row, (metric, label) in enumerate(AXES.items()):
        left, right = axes[2 * row : 2 * row + 2]
        plotting.level(left, select(vanilla, **WHOLE)[metric].mean(), black, "γ")
        plotting.line_with_band(right, vanilla, ALPHA, metric, black, wider=0.7)  # below W-asym, which lies on it
        _panel(left, results, metric, WHOLE, GAMMA)
        _panel(right, results, metric, {GAMMA: 0.1}, ALPHA)
        for ax, x in ((left, "weight decay γ"), (right, "input scale α")):
            ax.set(xscale="log", ylim=(0, None), ylabel=label if ax is left else "", xlabel=x if row == 2 else "")
    axes[0].set_title("α = 1")
    axes[1].set_title("γ = 0.1 (vanilla: 0)")
    return plotting.with_legend(figure, loc="outside lower center", ncols=4, caption="thin: a seed")


def finding(results: Results) -> Finding:
    """Accuracy under strong decay and on small inputs."""
    strong, faint = (
        [final("accuracy", arm)(results) for arm in (decay(at), syre(at, sigma=1), VANILLA | {ALPHA: at[ALPHA]})]
        for at in (STRONG, FAINT)
    )
    return Finding(
        f"Under strong decay (γ = 1) the transformer has {percent(strong[0])} accuracy with decay alone, "
        f"{percent(strong[1])} with syre at σ = 1 and {percent(strong[2])} with no decay; on inputs of 0.001 (γ = "
        f"0.1) it has {percent(faint[0])}, {percent(faint[1])} and {percent(faint[2])}.",
        "syre keeps full rank and is the most accurate",
        f"{interval(strong[1], 1, times=100)} % against {interval(strong[2], 1, times=100)} % with no decay",
    )
