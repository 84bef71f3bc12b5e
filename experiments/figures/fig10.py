"""Figure 10 (section 6.4): what a VAE makes of its images when the posterior has collapsed, and under syre."""

from typing import cast

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from experiments.analysis import plotting
from experiments.analysis.arms import beats, by_arm, final, same, usual
from experiments.analysis.claims import Claim, Superiority
from experiments.analysis.notes import Numbers
from experiments.analysis.results import Arm, Results
from experiments.analysis.summaries import Finding
from experiments.analysis.words import interval, percent
from experiments.figures.fig9 import DECAY, IMAGES, STRONG, SYRE, SYRE_001, SYRE_1, VANILLA

TITLE = "images of a collapsed beta-VAE, and of syre (the runs of figure 9)"
EXPERIMENT = "fig9"

VARIANCE = 68.2  # of the pixels in [0, 1] of Fashion-MNIST's training images, summed (test images: 67.9)
SHARE = 0.05 * VARIANCE
BLURRED = (
    "Without decay every image becomes the same blur at β = 10: the reconstructions vary by less than a tenth of what "
    "the images do."
)


def _distinct(id: str, who: str, treatment: Arm, than: str, control: Arm, source: str = "6.4") -> Superiority:
    """The reconstructions differ more from one another."""
    where, least = f"at γ = {STRONG}, β = 10", "by more than 5 % of the images' variance"
    text = f"{who} makes reconstructions {where} that vary more than those {than}, {least}."
    return beats(id, text, source, "reconstruction/variance", treatment, control, SHARE)


WITHOUT = ("without decay", VANILLA)
CLAIMS: tuple[Claim, ...] = (
    same("blurred", BLURRED, "6.4", "reconstruction/variance", VANILLA, DECAY, VARIANCE / 10),
    _distinct("distinct", "syre (best σ)", SYRE, *WITHOUT),
    _distinct("distinct-1", "syre (σ = 1)", SYRE_1, *WITHOUT),
    _distinct("distinct-0.01", "syre (σ = 0.01)", SYRE_001, *WITHOUT),
    _distinct("distinct-decay", "syre (best σ)", SYRE, "of weight decay alone", DECAY, "ours"),
)
REPEATS = "repeats {} of fig9, at z = m instead of a z that is drawn"
RETIRED = {
    "closer-1": REPEATS.format("reconstruction"),
    "closer-0.01": REPEATS.format("reconstruction-0.01"),
    "decay": REPEATS.format("against-decay"),
}


def notes(results: Results) -> str:
    say = Numbers(results)
    varied = say.final("reconstruction/variance", times=100 / VARIANCE)
    return f"""
**What it shows.** As the paper describes: blur without decay, images that can be told apart under syre at γ = 1000; the
nearer to the anchors, the sharper (the best σ is {say.best("reconstruction", SYRE)}). Decay alone, and syre at σ =
0.01, make one and the same blur of everything. At σ = 1 they vary a little more than without decay, by {varied(SYRE_1)}
% of what the images do against {varied(VANILLA)} %.

**How to read it.** Test images 0, 1, 2 and 8 of Fashion-MNIST and what each VAE of seed 0 makes of them, decoded from
the mean of the posterior; the claims are on the whole test set and all seeds. The paper shows no decay on the left
and syre at γ = 1000 on the right, β = 10; decay alone at the same γ is our control.

**Chosen.** "Blurred" and "distinct" are put into numbers as the variance of the reconstructions over the images,
summed over pixels (the images': 68.2), of which 5 % became the smallest difference worth naming when the results were
known. The best σ is that of figure 9, which reconstructs best; whether reconstructions are also near the images is
judged there. Same runs, settings and unknowns as figure 9.
"""


def draw(results: Results) -> Figure:
    results = usual(results)
    shown = results.runs[results.runs[IMAGES] != "[]"]
    shown = shown[shown["seed"] == shown["seed"].min()]
    arms = [(look.label, rows["id"].iloc[0]) for look, rows in by_arm(shown)]
    numbers = [int(k) for k in shown[IMAGES].iloc[0].strip("[]").split(",")]
    figure, axes = plotting.panels(len(arms) + 1, len(numbers), width=1.1, height=1.1)
    cast(ConstrainedLayoutEngine, figure.get_layout_engine()).set(rect=(0.01, 0.01, 0.98, 0.98), w_pad=0.06, h_pad=0.04)
    for k, row in zip(numbers, axes.reshape(len(numbers), -1), strict=True):
        _show(row[0], results.metrics, arms[0][1], f"original/{k}/")  # recorded with the first arm, vanilla
        for ax, (_, run) in zip(row[1:], arms, strict=True):
            _show(ax, results.metrics, run, f"pixel/{k}/")
    for ax, title in zip(axes, ["image", *(label.replace(", ", "\n") for label, _ in arms)], strict=False):
        ax.set_title(title)
    figure.suptitle(f"β = 10; weight decay and syre at γ = {STRONG}", fontsize=9)
    return figure


def _show(ax: Axes, metrics: pd.DataFrame, run: str, prefix: str) -> None:
    """The image whose pixels a run recorded as `<prefix><index>`."""
    rows = metrics[(metrics["id"] == run) & metrics["metric"].str.startswith(prefix)]
    order = rows["metric"].str.removeprefix(prefix).astype(int).argsort()
    pixels = rows["value"].to_numpy()[order]
    side = round(len(pixels) ** 0.5)
    ax.imshow(np.reshape(pixels, (side, side)), cmap="gray_r", vmin=0, vmax=1)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def finding(results: Results) -> Finding:
    """How much the reconstructions differ from one another, as a share of what the images do."""
    arms = {"none": VANILLA, "decay": DECAY, "0.01": SYRE_001, "1": SYRE_1, "best": SYRE}
    varied = {who: final("reconstruction/variance", arm)(results) / VARIANCE for who, arm in arms.items()}
    blur = "nearly the same blur" if max(varied["none"].mean(), varied["decay"].mean()) < 0.1 else "no single blur"
    return Finding(
        f"At β = 10 every image becomes {blur} without decay and with decay alone: their variance is "
        f"{percent(varied['none'])} and {percent(varied['decay'])} of the images'; under syre at γ = {STRONG} it is "
        f"{percent(varied['0.01'])} at σ = 0.01, {percent(varied['1'])} at σ = 1 and {percent(varied['best'])} at "
        "the best σ.",
        "blurred without decay, distinct with syre",
        f"{interval(varied['none'], times=100)} % against {interval(varied['best'], times=100)} % of the variance",
    )
