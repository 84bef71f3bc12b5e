"""Table 2 (section B.6): time per training step and per epoch of an MLP, a ResNet18 and a ViT, with and without."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis import plotting
from experiments.analysis.arms import look
from experiments.analysis.claims import Claim, NonInferiority
from experiments.analysis.notes import Numbers
from experiments.analysis.results import Results, select
from experiments.analysis.summaries import Finding, table
from experiments.analysis.tables import estimate, points
from experiments.analysis.words import span

TITLE = "what syre costs in time: steps of an MLP, a ResNet18 and a ViT, as ratios to the same steps without it"

NETWORK, BATCH, WIDTH = "task.network", "task.batch", "task.width"
NETWORKS = {"mlp": "MLP", "resnet18": "ResNet18", "vit": "ViT"}
FORMS = {"attach": "attach", "parametrize": "parametrize, the module form,"}


def ratio(results: Results, network: str, form: str, over: str) -> pd.Series:
    """Time of a step with syre to one without, of each repetition: the mean or max over the batch sizes."""
    rows = results.final(f"time/{form}", **{NETWORK: network})
    return rows.groupby("seed")[f"time/{form}"].agg(over)


def added(results: Results, form: str) -> pd.Series:
    """What syre adds to the time of a step, as a share of it: the mean over repetitions, of each network and batch."""
    return results.final(f"time/{form}").groupby([NETWORK, BATCH])[f"time/{form}"].mean() - 1


def _below(limit: float, network: str, form: str, over: str, words: str, source: str, **options: Any) -> NonInferiority:
    """The effect is what syre adds to the time of a step, with the other sign, as a share of it."""
    id, text = f"{form}-{100 * limit:g}-{network}", f"{FORMS[form]} costs {ARTICLES[network]} less than {words}."
    added = lambda results: 1 - ratio(results, network, form, over)  # noqa: E731
    return NonInferiority(id, text, source, added, margin=limit, paper="+2 to 20 %", **options)


ARTICLES = {"mlp": "an MLP", "resnet18": "a ResNet18", "vit": "a ViT"}
EVERY, MEAN = "20 % more time a step at every batch size", "2 % more time a step, averaged over batch sizes"
GPU = "1 % more time a step on a GPU, averaged over batch sizes"
CLAIMS: tuple[Claim, ...] = (
    *(_below(0.2, network, form, "max", EVERY, "B.6") for network in NETWORKS for form in FORMS),
    *(_below(0.02, network, "attach", "mean", MEAN, "ours") for network in NETWORKS),
    *(_below(0.01, network, "attach", "mean", GPU, "ours", scale="paper") for network in NETWORKS),
)


def notes(results: Results) -> str:
    say = Numbers(results)

    def longer(form: str) -> str:
        return say.told(lambda results: span(added(results, form), times=100))

    attach, module = map(longer, FORMS)
    return f"""
**What it shows.** On one CPU core attach costs {attach} % and the module form {module} %, the most in the MLP at its
smallest batch, and in ResNet18 and ViT nothing that can be told from 0: less than the paper's 2 to 20 %.

**How it is judged.** One-sided: costing nothing, or less than nothing, is fine. 20 % is the upper end of what the paper
reports, 2 % its lower end; the 1 % of a GPU is our own aim.

**How it is measured.** The three forms of one network are timed in turns in one process, each about 0.1 s a round, on
one batch of random numbers of the size of CIFAR-10's images that stays on the device: a step takes as long whatever the
pixels are, and loading is no part of it. A ratio is that of two times of one round; its median over rounds is one
repetition, and the intervals are over repetitions. With one thread the clock is the CPU time of the process. A step is
forward, backward and optimizer in float32, SGD with momentum, fused: an optimizer that does more would make syre's
share smaller. An epoch is 50,000 images divided by the batch size, rounded down, times the time of a step.

**Known and unknown.** Networks, batch sizes, the GPU (A6000), and an overhead of 2 to 20 % are known; the times in the
table, the sizes of the networks and the optimizer are not. 3072-300-300-300-10, torchvision's ResNet18 with the small
stem and the ViT of figure 12 are used at `paper` scale, on a GPU. At `cpu` scale the ResNet18 has 16 channels instead
of 64 and the ViT tokens of 64 instead of 512, and their batches are 128, 64 and 32: syre's work is in proportion to the
parameters alone, that of a step to parameters times batch, so its share is larger in small batches. Milliseconds and
megabytes of each repetition are in the tables (`ms/...`, `epoch/...`, `MB/...`); ratios are what is comparable.

**The two forms.** `attach` adds one operation per parameter tensor and step; `parametrize`, Eq. (6) as written,
forms w = θ + b in every forward pass, and is what the paper most likely measured.
"""


def mean(rows: pd.DataFrame, metric: str, digits: int = 3) -> str:
    """Over repetitions, to so many significant digits, without exponent."""
    value = rows[metric].mean()
    return f"{float(f'{value:.{digits}g}'):,.{max(0, digits - len(str(int(abs(value)))))}f}"


def settings(found: pd.DataFrame) -> list[tuple[str, pd.DataFrame, int]]:
    """Name, rows and batch size of each line of a table: networks in the paper's order, large batches first."""
    lines = []
    for network, name in NETWORKS.items():
        rows = select(found, **{NETWORK: network})
        for batch in sorted(rows[BATCH].unique(), reverse=True):
            lines.append((f"{name}, {rows[WIDTH].iloc[0]}", select(rows, **{BATCH: int(batch)}), int(batch)))
    return lines


LOOKS = {
    "attach": replace(look("syre"), label="attach"),
    "parametrize": replace(look("syre", 1, scope="matrices"), label="parametrize, the module form"),
}
ASIDE = 0.16  # of the two forms from the middle of their row
PAPER = (1.02, 1.20)  # what a step takes with syre; the times themselves are not known


def ratios(ax: Axes, lines: Sequence[tuple[str, pd.DataFrame, int]], metric: str, named: bool = True) -> None:
    """A row a network and batch size: a quantity of both forms."""
    drawn = [
        (place + side * ASIDE, own, rows[f"{metric}/{form}"])
        for place, (_, rows, _) in enumerate(lines)
        for side, (form, own) in zip((-1, 1), LOOKS.items(), strict=True)
    ]
    points(ax, drawn, [f"{name}; {batch} a batch" for name, _, batch in lines] if named else [], legend=True)


def paper_table(results: Results) -> str:
    """Table 2, ours and what is known of the paper's."""
    steps = [f"ms/{form}" for form in ("plain", *FORMS)]
    found = results.final(*steps, *(f"time/{form}" for form in FORMS), "epoch/plain")
    header = ["network, width", "batch", "without, ms a step", *(f"{form}, ms" for form in FORMS)]
    header += ["without, s an epoch", *(f"{form} / without" for form in FORMS), "the paper's"]
    lines = [
        [name, batch, *(mean(rows, step) for step in steps), mean(rows, "epoch/plain")]
        + [estimate(rows[f"time/{form}"], 3) for form in FORMS]
        + [f"{PAPER[0]:.2f} to {PAPER[1]:.2f}"]
        for name, rows, batch in settings(found)
    ]
    where = ", ".join(sorted(set(found["device"])))
    said = f"Means, on {where}, and 95 % intervals over repetitions. Of the paper's table only the overhead is known."
    return "\n".join([*table(header, lines), "", said])


def draw(results: Results) -> Figure:
    lines = settings(results.final(*(f"time/{form}" for form in FORMS)))
    figure, (ax,) = plotting.panels(width=5.6, height=0.33 * len(lines) + 1.3)
    ratios(ax, lines, "time")
    ax.axvspan(*PAPER, color="0.92", lw=0, zorder=0, label="the paper's")
    ax.axvline(1, color="0.5", lw=0.8, zorder=0)
    ax.set(xlabel="time of a step with syre / without", xlim=(0.92, 1.22))
    return plotting.with_legend(figure, loc="outside lower center", ncols=3)


def finding(results: Results) -> Finding:
    """From the least to the most that a step takes more, over networks and batch sizes."""
    attach, module = (span(added(results, form), times=100, unit=" %") for form in FORMS)
    where = "a CPU" if {*results.runs["device"]} == {"cpu"} else ", ".join(sorted({*results.runs["device"]}))
    return Finding(
        f"A step with attach takes {attach} longer, one with the module form {module}, over three networks and "
        f"three batch sizes each on {where}.",
        "+2 to 20 %",
        attach,
    )
