"""Table 3 (section B.6): peak memory of training steps of an MLP, a ResNet18 and a ViT, with and without syre."""

import pandas as pd
from matplotlib.figure import Figure

from experiments.analysis import plotting
from experiments.analysis.claims import Claim, NonInferiority, per_seed
from experiments.analysis.notes import Numbers
from experiments.analysis.results import Results
from experiments.analysis.summaries import Finding, table
from experiments.analysis.tables import NONE, estimate
from experiments.analysis.words import span
from experiments.figures.table2 import ARTICLES, BATCH, FORMS, NETWORK, NETWORKS, mean, ratios, settings

TITLE = "what syre costs in memory (the runs of table 2)"
EXPERIMENT = "table2"

# MB without and with syre: network -> batch
PAPER: dict[str, dict[int, tuple[int, int]]] = {
    "mlp": {512: (382, 384), 256: (360, 382), 128: (360, 382)},
    "resnet18": {512: (7020, 7049), 256: (3936, 4254), 128: (2096, 2190)},
    "vit": {512: (4216, 4218), 256: (2482, 2484), 128: (1574, 1574)},
}


@per_seed
def _added(results: Results, network: str) -> pd.Series:
    """What attach adds to the memory, as a share of it and with the other sign: the most over batch sizes."""
    rows = results.final("memory/attach", **{NETWORK: network})
    return 1 - rows.groupby("seed")["memory/attach"].max()


def _shares(results: Results, others: bool) -> pd.Series:
    """What attach adds to the memory of an MLP, or of the other networks, as a share of it, a batch size each."""
    share = results.final("memory/attach").groupby([NETWORK, BATCH])["memory/attach"].mean() - 1
    return share[(share.index.get_level_values(0) != "mlp") == others]


def _memory(network: str) -> NonInferiority:
    text = f"attach adds less than 10 % to the memory that {ARTICLES[network]} takes, at every batch size."
    paper = ", ".join(f"+{100 * (syre / plain - 1):.1f} %" for plain, syre in PAPER[network].values())
    return NonInferiority(f"memory-{network}", text, "B.6", _added(network), margin=0.1, paper=paper)


CLAIMS: tuple[Claim, ...] = tuple(map(_memory, NETWORKS))

_COPY = "moved to tests/tasks/test_cost_task.py: it is the same in every run"
RETIRED = {f"copy-{network}": _COPY for network in NETWORKS}


def notes(results: Results) -> str:
    say = Numbers(results)
    mlp = say.told(lambda results: span(_shares(results, False), times=100))
    others = say.told(lambda results: span(_shares(results, True), 1, times=100))
    twice = say.told(lambda results: span([results.final("copies/parametrize")["copies/parametrize"].max()], 1))
    return f"""
**What it shows.** attach adds one copy of the weights, to the byte, and nothing else: {others} % of what a ResNet18 or
a ViT takes, {mlp} % of an MLP, which is little but weights. The module form adds up to {twice}.

**How it is judged.** One-sided, against 10 %, more than the paper reports anywhere. That attach adds one copy of the
weights and no more is no question for statistics: the tests of the task check it.

**How it is measured.** Peak memory is the most that torch's allocator holds at once for model, batch, activations,
gradients, optimizer and anchors over two steps, each form by itself, once a process: on a GPU
`torch.cuda.max_memory_allocated`, on a CPU the running sum of the profiler's record of every allocation and release,
which counts the same thing to the byte. Scratch space that a library takes by itself (oneDNN's convolutions on a CPU)
is in neither, nor is the driver's own memory. MB is 2^20 bytes. The number depends on neither pixels nor seed, so that
intervals have no width.

**The paper's numbers** beside ours are for the networks at full size on a GPU and seem to be what the driver reports:
its MLP takes 360 MB at batches of 128 and 256 alike, of which weights, momentum and activations of any network of that
kind are a few per cent; the rest is CUDA's own. So a percentage of its MLP is one of that constant. By bytes of tensors
an MLP is mostly weights (weights, gradients and momentum are three copies, so a fourth is a third of them), and syre
adds more than 10 % to it, while one copy is less than 1 % of a ResNet18 or ViT at full size. Differences between
batch sizes do not contain the constant: 6.9 MB an image for the paper's ViT, 12.8 for its ResNet. The ViT of figure 12
takes 8.2 on a CPU, torchvision's ResNet18 with the small stem 4.4: theirs is another ResNet, or what the driver reports
includes what the allocator keeps in reserve. So megabytes are not compared, ratios are.

**The two forms.** `attach` keeps one anchor per decayed parameter. `parametrize` keeps it too, and forms the sum
w = θ + b during the step: up to two copies at the peak.
"""


KINDS = [f"{kind}/{form}" for kind in ("MB", "memory", "copies") for form in FORMS]


def _found(results: Results) -> pd.DataFrame:
    return results.final("parameters", "MB/plain", *KINDS)


def paper_table(results: Results) -> str:
    """Table 3, ours and the paper's, with a line for each batch size of either."""
    found = _found(results)
    header = ["network, width", "batch", "weights, MB", "without, MB", *(f"{form}, MB" for form in FORMS)]
    header += [*(f"{form} / without" for form in FORMS), *(f"{form}, copies" for form in FORMS)]
    header += ["the paper's, MB without → with", "ratio"]
    where = ", ".join(sorted(set(found["device"])))
    said = f"Peak memory of training steps on {where}, and what syre adds, in copies of the weights. The paper's "
    said += "networks are larger, and its megabytes those of a GPU: ratios compare."
    return "\n".join([*table(header, _lines(found)), "", said])


def _lines(found: pd.DataFrame) -> list[list[object]]:
    ours = {(rows[NETWORK].iloc[0], batch): (name, rows) for name, rows, batch in settings(found)}
    lines: list[list[object]] = []
    for network in NETWORKS:
        batches = {batch for of, batch in ours if of == network} | {*PAPER[network]}
        for batch in sorted(batches, reverse=True):
            paper = PAPER[network].get(batch)
            theirs = [f"{paper[0]} → {paper[1]}", f"{paper[1] / paper[0]:.3f}"] if paper else [NONE] * 2
            name, rows = ours.get((network, batch), (NETWORKS[network], None))
            lines.append([name, batch, *(_cells(rows) if rows is not None else [NONE] * 8), *theirs])
    return lines


def _cells(rows: pd.DataFrame) -> list[str]:
    megabytes = [mean(rows, f"MB/{form}", 4) for form in ("plain", *FORMS)]
    shares = [estimate(rows[f"memory/{form}"], 3) for form in FORMS]
    return [mean(rows, "parameters"), *megabytes, *shares, *(estimate(rows[f"copies/{form}"], 2) for form in FORMS)]


def draw(results: Results) -> Figure:
    lines = settings(_found(results))
    figure, (left, right) = plotting.panels(2, width=4.4, height=0.33 * len(lines) + 1.3)
    ratios(left, lines, "memory")
    ratios(right, lines, "copies", named=False)
    for place, (_, rows, batch) in enumerate(lines):
        if paper := PAPER[rows[NETWORK].iloc[0]].get(batch):
            plotting.papers(left, paper[1] / paper[0], place, "0.3")
    left.set(xlabel="peak memory with syre / without")
    right.set(xlabel="what it adds, in copies of the weights", xlim=(0, 2.2))
    return plotting.with_legend(figure, loc="outside lower center", ncols=3)


def finding(results: Results) -> Finding:
    """Copies of the weights, and what share of the memory they are."""
    mlp, others = (_shares(results, of) for of in (False, True))
    printed = [syre / plain - 1 for batches in PAPER.values() for plain, syre in batches.values()]
    copies = span(results.final("copies/attach").groupby([NETWORK, BATCH])["copies/attach"].mean(), 2)
    return Finding(
        f"attach adds {copies} copies of the weights: {span(mlp, times=100)} % of the memory that an MLP takes in "
        f"training, {span(others, 1, times=100)} % of a ResNet18's or a ViT's.",
        f"+{span(printed, times=100)} %",
        f"+{span(pd.concat([mlp, others]), times=100)} %",
    )
