"""A GPT on source code: what decay, towards 0 and towards an anchor, does to loss, ranks and plasticity."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from matplotlib.figure import Figure

from experiments.analysis import plotting
from experiments.analysis.arms import (
    GAMMA,
    SAME_START,
    VANILLA,
    arm,
    beats,
    costs,
    decay,
    difference,
    final,
    look,
    same,
    syre,
    width,
)
from experiments.analysis.claims import MIN_SEEDS, Claim
from experiments.analysis.notes import Numbers
from experiments.analysis.results import Arm, Results, ResultsError, select
from experiments.analysis.summaries import Finding, table
from experiments.analysis.words import interval, less, mean, word

TITLE = "a GPT on source code: loss, rank of attention and plasticity over the decay"

LOSS, STREAM = "loss", "rank/effective"
PRODUCTS = {"query_key": "W_Q^T W_K", "output_value": "W_O W_V"}
GAMMAS, STRONG = (0.01, 0.1, 1), (0.1, 1)
NATS = 0.02  # per byte: the smallest difference of losses worth naming
HEAD, WIDTH = 32, 128
RANKS = width(HEAD)  # 1.6: 5 % of the largest rank that a head can have
MATRICES: dict[str, Any] = {"scope": "matrices"}
KOBAYASHI = "arXiv 2410.23819"
SIZE = "5 % of the head size"

SYRES: dict[str, tuple[str, dict[str, Any]]] = {  # as ids say them, and claims
    "0.01": ("σ = 0.01", {"sigma": 0.01}),
    "1": ("σ = 1", {"sigma": 1}),
    "absolute-0.01": ("absolute σ = 0.01", {"sigma": 0.01, "unit": "absolute"}),
}
KEEP: dict[str, Any] = {"sigma": 1, "start": "keep"}
OFFSET = arm("offset", sigma=1)  # decay to 0, from the start of syre at sigma = 1


def offset(gamma: float) -> Arm:
    return {**OFFSET, GAMMA: gamma}


def first_text(results: Results) -> Results:
    """The results as they were after the first text, at half of the steps."""
    rows = results.metrics
    return replace(results, metrics=rows[rows["step"] <= rows["step"].max() / 2])


def _before(claim: Claim) -> Claim:
    """A claim about the first text."""
    return replace(claim, samples=lambda results: claim.samples(first_text(results)))


def _rank(product: str) -> str:
    return f"{product}/rank/effective"


def _low_rank(scope: str = "") -> Iterator[Claim]:
    """Kobayashi et al.: decay lowers the rank of the products of attention. The treatment is no decay."""
    which, key = (" of the matrices alone", f"-{scope}") if scope else ("", "")
    for product, written in PRODUCTS.items():
        for g in (1,) if scope else STRONG:
            text = f"Decay{which} (γ = {g}) lowers the effective rank of {written} by more than {SIZE}."
            claim = beats(
                f"low-rank-{product}-{g}{key}",
                text,
                KOBAYASHI,
                _rank(product),
                VANILLA,
                decay(gamma=g, scope=scope),
                RANKS,
            )
            yield _before(claim)


def _of_the_loss() -> Iterator[Claim]:
    """Does decay hurt, or help, a language model? Both sides."""
    for g in STRONG:
        hurts = f"Decay (γ = {g}) makes the loss on held-out text worse than no decay does, by more than 0.02 nats."
        helps = f"Decay (γ = {g}) makes the loss on held-out text better than no decay does, by more than 0.02 nats."
        yield _before(beats(f"hurts-{g}", hurts, KOBAYASHI, LOSS, VANILLA, decay(gamma=g), NATS))
        yield _before(beats(f"helps-{g}", helps, "ours", LOSS, decay(gamma=g), VANILLA, NATS))


def _plastic() -> Iterator[Claim]:
    """Is a second text learned to a lower loss with more decay? (Han et al. stop the decay before it.)"""
    for g in STRONG:
        text = f"Decay (γ = {g}) ends the second text with a lower loss than no decay, by more than 0.02 nats."
        yield beats(f"plastic-{g}", text, "ours", LOSS, decay(gamma=g), VANILLA, NATS)
    more = "Decay of γ = 1 ends the second text with a lower loss than γ = 0.01, by more than 0.02 nats."
    yield beats("plastic-more", more, "ours", LOSS, decay(gamma=1), decay(gamma=0.01), NATS)


def _syre(key: str) -> Iterator[Claim]:
    """syre at one sigma, against decay alone at the same gamma."""
    words, own = SYRES[key]
    for g in STRONG:
        for product, written in PRODUCTS.items():
            text = f"At γ = {g} syre ({words}) keeps a higher effective rank of {written} than decay, by {SIZE}."
            yield _before(_over(f"rank-{product}-{key}-{g}", text, _rank(product), syre(gamma=g, **own), g, RANKS))
        text = f"At γ = {g} syre ({words}) keeps a higher effective rank of the residual stream, by 5 % of the width."
        yield _before(_over(f"stream-{key}-{g}", text, STREAM, syre(gamma=g, **own), g, width(WIDTH)))
        text = f"At γ = {g} syre ({words}) ends the second text with a lower loss than decay, by more than 0.02 nats."
        yield _over(f"plastic-{key}-{g}", text, LOSS, syre(gamma=g, **own), g, NATS)
    for g in GAMMAS:
        text = f"At γ = {g} syre ({words}) costs less than 0.02 nats on held-out text against decay alone."
        yield _before(costs(f"cost-{key}-{g}", text, "ours", LOSS, syre(gamma=g, **own), decay(gamma=g), NATS))


def _over(id: str, text: str, metric: str, treatment: Arm, gamma: float, margin: float, scope: str = "") -> Claim:
    return beats(id, text, "ours", metric, treatment, decay(gamma=gamma, scope=scope), margin)


def _further() -> Iterator[Claim]:
    """No decay, the start, the matrices alone, and D."""
    for g in STRONG:
        text = f"syre at the recommended σ = 0.01 (γ = {g}) costs less than 0.02 nats against no decay."
        yield _before(costs(f"no-decay-{g}", text, "ours", LOSS, syre(gamma=g, sigma=0.01), VANILLA, NATS))
    for product, written in PRODUCTS.items():
        text = f"At γ = 1 syre (σ = 1), from decay's start, keeps a higher effective rank of {written}, by {SIZE}."
        yield _before(_over(f"rank-{product}-keep", text, _rank(product), syre(gamma=1, **KEEP), 1, RANKS))
        for sigma in (0.01, 1):
            text = (
                f"Of matrices alone (γ = 1) syre (σ = {sigma}) keeps a higher effective rank of {written}, by {SIZE}."
            )
            treatment = syre(gamma=1, sigma=sigma, **MATRICES)
            yield _before(
                _over(f"rank-{product}-{sigma}-matrices", text, _rank(product), treatment, 1, RANKS, "matrices")
            )
    for g in STRONG:
        advanced, plain = arm("syre_advanced", gamma=g, sigma=0.01), syre(gamma=g, sigma=0.01)
        text = f"At γ = {g} D changes the loss on held-out text by less than 0.02 nats (σ = 0.01)."
        yield _before(same(f"advanced-loss-{g}", text, "ours", LOSS, advanced, plain, NATS))
        text = f"At γ = {g} D changes the effective rank of W_Q^T W_K by less than {SIZE} (σ = 0.01)."
        yield _before(same(f"advanced-rank-{g}", text, "ours", _rank("query_key"), advanced, plain, RANKS))


def _of_the_start() -> Iterator[Claim]:
    """syre at sigma = 1 against decay to 0 from the same start, init + b: is it the anchor, or the larger weights?"""
    text = "At γ = 0.1 decay to 0 from syre's start (σ = 1) has syre's loss on held-out text, within 0.02 nats."
    yield _before(same("start-0.1", text, "ours", LOSS, syre(gamma=0.1, sigma=1), offset(gamma=0.1), NATS))
    text = "At γ = 1 syre (σ = 1) has a lower loss on held-out text than decay to 0 from its start, by 0.02 nats."
    yield _before(beats("anchor-1", text, "ours", LOSS, syre(gamma=1, sigma=1), offset(gamma=1), NATS))


CLAIMS: tuple[Claim, ...] = (
    *_low_rank(),
    *_low_rank(**MATRICES),
    *_of_the_loss(),
    *_plastic(),
    *(claim for key in SYRES for claim in _syre(key)),
    *_further(),
    *_of_the_start(),
)

SETTINGS = """
**Two hypotheses.** Kobayashi et al. (NeurIPS 2024, arXiv 2410.23819): decay lowers the rank of W_Q^T W_K and W_O W_V,
and can hurt language models. Han et al. (2026, arXiv 2602.11137): more decay makes language models more plastic, even
where it makes them worse before. Here both, with decay towards 0 and towards syre's anchor.

**Settings.** A GPT: four pre-norm blocks of width 128 with four heads of 32, MLPs of 512 (GELU), learned positions, the
last layer untied, GPT-2's start, no dropout: 875,264 parameters. The text is the source of the standard library of the
Python that runs it, without its tests, byte by byte in windows of 128, and differs with the version of Python: which it
was stands in runs.csv, `versions.text`. One file in twenty is held out, by a shuffle that is the same for all seeds;
losses are over 512 windows spread over these, ranks of the residual stream over the first 64 of them. Five of the files
that are held out are tables of encodings (13 % of the bytes), and most of their lines stand in tables that are trained
on. AdamW at 0.002, batches of 16, 3,000 steps: 1,500 on the text, then 1,500 on other windows of it with its bytes
renamed by a permutation of all 256, each with a warm-up and a cosine of its own, so that ηγt is 1.5 γ on each; Adam's
moments, and the anchors, stay. Most bytes are renamed to ones that the first text does not have, and whose embeddings
have only decayed, or moved to their anchors. 25 arms, three seeds (the last two, decay to 0 from the start of
σ = 1, and their two claims, came after the first seed of the others).

**Deviations.** Han et al. fine-tune large models on other tasks, and vary the decay of the pretraining alone; here the
decay goes on through the second text, which is as hard as the first, so that the losses of the two compare. What a
strong decay costs on any text counts against it there too, so that the claims on the second text are ours, not theirs.
The rank is here the effective one, of at most 32, the mean over heads and blocks; the numerical and the stable rank
stand beside it in metrics.csv. An effect worth naming: 0.02 nats a byte, 5 % of the head size (1.6), 5 % of the width
(6.4).
"""

PANELS = {
    (LOSS, True): "loss, first text (nats)",
    (_rank("query_key"), True): "effective rank of $W_Q^T W_K$",
    (_rank("output_value"), True): "effective rank of $W_O W_V$",
    (STREAM, True): "effective rank, residual stream",
    (LOSS, False): "loss, second text (nats)",
}
LINES = {
    look("weight_decay"): decay(),
    look("syre", 0.01): syre(sigma=0.01),
    look("syre", 1): syre(sigma=1),
    look("syre", 0.01, unit="absolute"): syre(sigma=0.01, unit="absolute"),
    look("syre_advanced", 0.01): arm("syre_advanced", sigma=0.01),
    SAME_START: syre(**KEEP),
    look("offset"): OFFSET,
    look("weight_decay", scope="matrices"): decay(**MATRICES),
    look("syre", 0.01, scope="matrices"): syre(sigma=0.01, **MATRICES),
    look("syre", 1, scope="matrices"): syre(sigma=1, **MATRICES),
}


SHOWN = {"loss, first text": (LOSS, True, 3), "loss, second text": (LOSS, False, 3)}
SHOWN |= {f"rank of {written}": (_rank(product), True, 1) for product, written in PRODUCTS.items()}
SHOWN |= {"rank, residual stream": (STREAM, True, 1)}


def further(results: Results) -> str:
    """For the report: every arm, in losses (nats a byte) and effective ranks, the mean over seeds."""
    say = {True: Numbers(first_text(results)), False: Numbers(results)}
    arms = {("vanilla", "0"): VANILLA}
    for own, rows in LINES.items():
        arms |= {(own.label, f"{g:g}"): {**rows, GAMMA: g} for g in GAMMAS if _there(results, rows, g)}
    cells = [
        [label, g, *(say[first].final(metric, digits)(own) for metric, first, digits in SHOWN.values())]
        for (label, g), own in arms.items()
    ]
    said = (
        "Means over seeds; ranks are effective ones, after the first text, of at most 32 (a head) and 128 (the stream)."
    )
    return "\n".join(table(["arm", "γ", *SHOWN], cells)) + f"\n\n{said}"


def _there(results: Results, rows: Arm, gamma: float) -> bool:
    return not select(results.runs, **{**rows, GAMMA: gamma}).empty


def notes(results: Results) -> str:
    if not _judged(results):
        return SETTINGS
    say, first = Numbers(results), Numbers(first_text(results))

    def more(arm: Arm, control: Arm, text: Numbers = first, metric: str = LOSS, digits: int = 3) -> str:
        """How much more of a metric an arm has."""
        return text.interval(difference(metric, arm, control), digits)

    def on_both(arm: Arm, control: Arm) -> str:
        return f"{more(arm, control)} nats on the first text and {more(arm, control, say)} on the second"

    one, tenth = decay(gamma=1), decay(gamma=0.1)
    kept, shifted = ([syre(gamma=g, sigma=1, **own) for g in STRONG] for own in ({"start": "keep"}, {"start": "shift"}))
    key, value = (_rank(product) for product in PRODUCTS)

    def of_the_rank(product: str) -> str:
        """What the start, the anchor, and the anchor without the larger start change, at γ = 0.1 and at 1."""
        alone, started = (tenth, one), [offset(g) for g in STRONG]
        said = (
            " and ".join(more(*pair, metric=_rank(product), digits=1) for pair in zip(arms, controls, strict=True))
            for arms, controls in ((started, alone), (shifted, started), (kept, alone))
        )
        return "{} by the start, {} by the anchor, and {} by the anchor from decay's own start".format(*said)

    return f"""{SETTINGS}
**How sure.** From seed to seed the losses of an arm scatter by {first.told(_scatter)} nats on the first text and by
{say.told(_scatter)} on the second, whose renaming is the seed's (root mean square over the arms). On three seeds
effects of the size of the margin, 0.02, mostly stay open.

**What it shows** (differences, a loss that is larger being worse). Decay of γ = 1 changes the effective rank of
W_Q^T W_K by {more(one, VANILLA, metric=key, digits=1)} and that of W_O W_V by
{more(one, VANILLA, metric=value, digits=1)}, and the loss by {on_both(one, VANILLA)}; γ = 0.1 changes the loss by
{on_both(tenth, VANILLA)}. At γ = 1 syre with σ = 1 changes the loss against decay alone by {on_both(shifted[1], one)},
and against no decay by {on_both(shifted[1], VANILLA)}; with σ = 0.01, against decay alone, by
{on_both(syre(gamma=1, sigma=0.01), one)}.

**The anchor or the start.** With σ = 1 syre starts from init + b, and so from weights that are several times as large
as GPT-2's (of 128 inputs a std of 0.09 instead of 0.02), which alone may change what is learnt. Decay to 0 from that
start changes the loss, against decay from its own, by {on_both(offset(0.1), tenth)} (γ = 0.1) and by
{on_both(offset(1), one)} (γ = 1); the anchor, syre against decay to 0 from the same start, by
{on_both(shifted[0], offset(0.1))} and by {on_both(shifted[1], offset(1))}. From decay's own start syre changes it,
against decay alone at the same γ, by {on_both(kept[0], tenth)} and by {on_both(kept[1], one)}.

The claims that syre with σ = 1 keeps a higher rank ask the two at once, and near the anchors the rank is that of the
anchors, which is near that of the start. Apart, at γ = 0.1 and 1, the effective rank of W_Q^T W_K changes by
{of_the_rank("query_key")}; that of W_O W_V by {of_the_rank("output_value")}.
"""


def _scatter(results: Results) -> str:
    """The standard deviation of the final losses over the seeds of an arm, root mean square over the arms."""
    arms = [VANILLA, *({**rows, GAMMA: g} for rows in LINES.values() for g in GAMMAS if _there(results, rows, g))]
    return f"{sum(results.by_seed(LOSS, own).var() for own in arms) ** 0.5 / len(arms) ** 0.5:.3f}"


def draw(results: Results) -> Figure:
    figure, axes = plotting.panels(3, 2, width=3.3, height=2.7)
    tables = {first: (first_text(results) if first else results).final for first in (True, False)}
    for ax, ((metric, first), title) in zip(axes, PANELS.items(), strict=False):
        table = tables[first](metric)
        none = plotting.t_interval(select(table, **VANILLA)[metric].dropna())
        ax.axhline(none.mean, color=look("vanilla").color, ls=":", label=look("vanilla").label)
        ax.axhspan(none.low, none.high, color=look("vanilla").color, alpha=0.12, lw=0)
        for own, rows in LINES.items():
            plotting.line_with_band(ax, select(table, **rows), GAMMA, metric, own)
        ax.set(xscale="log", xlabel="weight decay γ", title=title)
    curves = results.curve(LOSS).query("step > 0")
    for own, rows in {
        look("vanilla"): VANILLA,
        **{own: {**rows, GAMMA: 1} for own, rows in [*LINES.items()][:3]},
    }.items():
        plotting.line_with_band(axes[5], select(curves, **rows), "step", LOSS, own)
    axes[5].set(xlabel="step", title="loss over training, γ = 1 (nats)")
    return plotting.with_legend(figure, loc="outside lower center", ncols=4)


def _judged(results: Results) -> bool:
    """Whether there are the seeds that an interval takes: with fewer a sentence would call all of it unclear."""
    shown = (VANILLA, decay(gamma=1), syre(sigma=1, gamma=1), offset(1))
    try:
        return all(len(results.final(LOSS, **own)) >= MIN_SEEDS for own in shown)
    except ResultsError:  # nothing is recorded
        return False


def _require_seeds(results: Results) -> None:
    if not _judged(results):
        raise ResultsError(f"fewer than {MIN_SEEDS} seeds")


def finding(results: Results) -> Finding:
    """Loss and rank of attention after the first text, and the loss of the second."""
    _require_seeds(results)
    shown = [VANILLA, decay(gamma=1), syre(sigma=1, gamma=1)]
    first = first_text(results)
    nats, then = ([final(LOSS, arm)(of) for arm in shown] for of in (first, results))
    ranks = [mean(final(_rank("query_key"), arm)(first), 1) for arm in shown]
    helps = word(less(nats[1], nats[0]), ("lowers", "does not clearly change", "raises"), NATS)
    plastic = word(less(then[1], then[0]), ("lowers", "does not clearly change", "raises"), NATS)
    return Finding(
        f"Decay (γ = 1) {helps} a GPT's loss on its first text ({mean(nats[0], 2)} → {mean(nats[1], 2)}) and "
        f"{plastic} that on a second ({mean(then[0], 2)} → {mean(then[1], 2)}); syre at σ = 1 has "
        f"{mean(nats[2], 2)} and {mean(then[2], 2)}. Rank of attention, of {HEAD}: {ranks[0]}, {ranks[1]} and "
        f"{ranks[2]}.",
        "",
        f"{interval(less(nats[1], nats[0]), 3)} nats by decay on the first text",
    )


def learnt(results: Results) -> str:
    """Both sides of decay in a language model, and where syre beats decay, no decay and decay from the same start."""
    _require_seeds(results)
    first = first_text(results)
    arms = {"none": VANILLA, "decay": decay(gamma=1), "syre": syre(sigma=1, gamma=1), "start": offset(1)}
    nats = [{name: final(LOSS, arm)(of) for name, arm in arms.items()} for of in (first, results)]
    none, alone, anchored, started = (mean(final(_rank("query_key"), arm)(first), 1) for arm in arms.values())
    moved = ("lowers", "does not clearly change", "raises")
    one, two = (word(less(of["decay"], of["none"]), moved, NATS) for of in nats)
    ways = ("better than", "not clearly other than", "worse than")
    said = [[word(less(of["syre"], of[other]), ways, NATS) for other in ("decay", "none", "start")] for of in nats]
    on_one, on_two = (
        f"{decayed} that of decay, {plain} that of no decay and {own} that of decay to 0 from the same, larger start"
        for decayed, plain, own in said
    )
    losses = (
        f" and {one} the loss of both texts"
        if one == two
        else f", {one} the loss of its first text and {two} that of a second"
    )
    compared = (
        f"The loss of syre on both texts is {on_one}."
        if on_one == on_two
        else f"The loss of syre on the first text is {on_one}; on the second it is {on_two}."
    )
    return (
        f"In a GPT of 0.9 million parameters decay (γ = 1) takes the effective rank of attention from {none} to "
        f"{alone} of {HEAD}{losses}; syre at σ = 1 has rank {anchored}, decay to 0 from the same start {started}. "
        f"{compared}"
    )
