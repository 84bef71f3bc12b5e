"""The paper in 26 statements, and the claims that decide each of them; overview.py makes the front page of it.

A statement has four cells: what it says at the recommended sigma, at the best sigma (one for all metrics of a figure,
chosen on other seeds), against no decay at all, and against the best rival. Each is a claim, "figure/id", or several,
or some words that say why there is none. The first two decide the statement (`in_words`); the others put it into place.
"""

from collections.abc import Collection
from dataclasses import dataclass

from experiments.analysis.summaries import VERDICTS

REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE, _, CONTRARY = VERDICTS

Cell = str | tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A statement of the paper, in one sentence that stands alone, and its cells.

    `where`: the place in the paper; `figure`: the figure here that judges it; `metric`: what the cells show, in the
    order of their claims.
    """

    number: int
    text: str
    where: str
    figure: str
    metric: str
    recommended: Cell
    best: Cell
    no_decay: Cell
    rival: Cell


def references(cell: Cell) -> tuple[str, ...]:
    """The claims of a cell: none if it is words."""
    if isinstance(cell, tuple):
        return cell
    return (cell,) if "/" in cell and " " not in cell else ()


def in_words(statement: Statement, recommended: Collection[str], best: Collection[str]) -> str:
    """A statement's verdict in words, from the verdicts of its first two cells.

    All hold at the recommended sigma and none fails at the best: it holds as recommended (or at any sigma, where it
    says nothing of a best one). All hold at the best: it holds at a larger sigma. Only some hold: partly. None holds:
    contradicted if a test failed, contrary so far if the numbers of a smaller scale speak against it, not shown if
    tests were inconclusive, and else not decided yet.
    """
    both = {*recommended, *best}
    if not both:
        return "holds, an identity" if str(statement.recommended).startswith(IDENTITY) else "not decided yet"
    if {*recommended} == {REPRODUCED} and not {NOT_REPRODUCED, CONTRARY} & {*best}:
        return "holds as recommended" if best else "holds at any σ"
    if {*best} == {REPRODUCED}:
        return "holds at larger σ"
    if REPRODUCED in both:
        return "partly holds"
    words = {NOT_REPRODUCED: "contradicted", CONTRARY: "contrary so far", INCONCLUSIVE: "not shown here"}
    return next((said for verdict, said in words.items() if verdict in both), "not decided yet")


WORDS = (
    *("holds, an identity", "holds at any σ", "holds as recommended", "holds at larger σ", "partly holds"),
    *("not shown here", "contrary so far", "contradicted", "not decided yet"),
)
IDENTITY = "exact identity:"
YET = "no claim yet"
NO_SIGMA = "needs no σ"
NO_RIVAL = "no rival is run"
OF_THE_LOSS = "of the loss, not of training"
OF_SIGMA = "a statement about σ = 0.01"

STATEMENTS = (
    Statement(
        number=1,
        text="A network that starts on a symmetric point stays there, and trains as one with fewer parameters.",
        where="Prop. 1 to 3",
        figure="theory",
        metric="",
        recommended=f"{IDENTITY} tests/test_theory.py",
        best=NO_SIGMA,
        no_decay="of training without syre",
        rival="of training without syre",
    ),
    Statement(
        number=2,
        text="Bias and weight decay together remove all reflection symmetries; either alone removes none.",
        where="Theorem 1",
        figure="theory",
        metric="decades of the residual above 1e-9 with both; residual with decay alone; with the bias alone",
        recommended=("theory/thm1", "theory/thm1-decay", "theory/thm1-bias"),
        best="holds for every σ > 0",
        no_decay="part of the statement: the bias alone",
        rival=OF_THE_LOSS,
    ),
    Statement(
        number=3,
        text="Distinct entries of D remove uncountably many symmetries too.",
        where="Theorem 2",
        figure="theory",
        metric="decades of the residual above 1e-9: of the symmetries that D = I leaves; of any, by search",
        recommended=("theory/thm2-orthogonal", "theory/thm2"),
        best="holds for every σ > 0",
        no_decay=OF_THE_LOSS,
        rival=OF_THE_LOSS,
    ),
    Statement(
        number=4,
        text="Symmetries are broken by γσ, as one over their number, and as the root of their rank.",
        where="Theorems 3 to 5, Corollary 1",
        figure="theory",
        metric="deviations from the laws",
        recommended=tuple(f"theory/{law}" for law in ("thm3", "cor1", "thm4-flips", "thm4-swaps", "thm5-1-slope")),
        best="a law in σ",
        no_decay=OF_THE_LOSS,
        rival=OF_THE_LOSS,
    ),
    Statement(
        number=5,
        text="For an abelian group U at most about log|U| of its subgroups matter.",
        where="Theorem 5 (3)",
        figure="theory",
        metric="room below the bound on four pairs of neurons; on 16 neurons; weakness that generators miss",
        recommended=("theory/thm5-3-pairs", "theory/thm5-3-regular", "theory/thm5-3-generators-regular"),
        best="a law in σ",
        no_decay=OF_THE_LOSS,
        rival=OF_THE_LOSS,
    ),
    Statement(
        number=6,
        text="Neurons that start identical stay so and training suffers; syre frees them.",
        where="Fig. 1",
        figure="fig1",
        metric="test loss",
        recommended="fig1/loss-0.9-0.01",
        best="fig1/loss-0.9",
        no_decay="fig1/no-decay-loss-0.9",
        rival="fig1/l2-init-0.9",
    ),
    Statement(
        number=7,
        text="Identical neurons lower the rank of the tangent kernel; syre restores it.",
        where="Fig. 14",
        figure="fig14",
        metric="effective rank: above decay alone, in shares of d; share of a start without copies that is missing",
        recommended=("fig14/effective-ntk-0.01", "fig14/recovers-0.01"),
        best=("fig14/effective-ntk", "fig14/recovers-1"),
        no_decay="fig14/no-decay-ntk",
        rival=NO_RIVAL,
    ),
    Statement(
        number=8,
        text="The higher the dimension of a symmetry, the more of it syre removes; decay alone gains little from it.",
        where="Fig. 2",
        figure="fig2",
        metric="trend of syre; fall of decay alone, in fig. 2 and with 10,000 samples; no decay's neurons less syre's",
        recommended=("fig2/law-0.01", "fig2/decay-flat", "fig2_teacher/decay-flat"),
        best=("fig2/law-fixed", "fig2/decay-flat", "fig2_teacher/decay-flat"),
        no_decay="fig2/no-decay-symmetry-20",
        rival=NO_RIVAL,
    ),
    Statement(
        number=9,
        text="In linear regression syre is essentially ridge regression.",
        where="Fig. 3 left, Eq. (13)",
        figure="fig3",
        metric="difference of the losses; no decay: decades of the loss at N = d",
        recommended="fig3/ridge-0.01",
        best="fig3/ridge-0.1",
        no_decay="fig3/no-decay-peak",
        rival="ridge is what it is compared with",
    ),
    Statement(
        number=10,
        text="Below σ = 0.2 syre costs a ResNet18 on CIFAR-10 no accuracy.",
        where="Fig. 3 middle",
        figure="fig3b_full",
        metric="accuracy; σ = 0.1 and σ = 0.2",
        recommended="fig3b_full/free-0.01",
        best=("fig3b_full/free-0.1", "fig3b_full/free-0.2"),
        no_decay="fig3b_full/no-decay",
        rival=NO_RIVAL,
    ),
    Statement(
        number=11,
        text="SGD and W-fix kill the neurons of reparametrised regression, syre does not.",
        where="Fig. 3 right",
        figure="fig3",
        metric="share alive with syre; killed with decay; without decay; last columns: neurons or share alive, loss",
        recommended=("fig3/away-0.01", "fig3/collapse-weight_decay", "fig3/collapse-vanilla"),
        best=("fig3/away", "fig3/collapse-weight_decay", "fig3/collapse-vanilla"),
        no_decay=("fig3/no-decay-alive", "fig3/no-decay-loss"),
        rival=("fig3/w-fix", "fig3/w-fix-loss"),
    ),
    Statement(
        number=12,
        text="σ = 0.01, in units of the initial scale, is enough to undo a collapse.",
        where="5.4",
        figure="sigma_map",
        metric="share of the collapse undone in five figures; last column: with absolute 0.01",
        recommended=tuple(f"sigma_map/effect-fig{k}-0.01" for k in (2, 5, 9, 11, 13)),
        best=OF_SIGMA,
        no_decay=OF_SIGMA,
        rival=tuple(f"sigma_map/effect-fig{k}-absolute-0.01" for k in (2, 5, 9, 11, 13)),
    ),
    Statement(
        number=13,
        text="Only syre goes smoothly from a low objective to few symmetries.",
        where="Fig. 4",
        figure="fig4",
        metric="area dominated beyond decay; at the best σ also: what W-fix removes; rival: W-fix, κ best and 1",
        recommended=tuple(f"fig4/pareto-weight_decay-{s}-0.01" for s in ("unstructured", "structured")),
        best=(
            *(f"fig4/pareto-weight_decay-{s}" for s in ("unstructured", "structured")),
            *(f"fig4/only-w_fix-{s}" for s in ("unstructured", "structured")),
        ),
        no_decay="every arm sweeps a strength from 0",
        rival=(
            *(f"fig4/pareto-w_fix-{s}" for s in ("unstructured", "structured")),
            *(f"fig4_scale/area-1-fig4_scale-{s}" for s in ("unstructured", "structured")),
        ),
    ),
    Statement(
        number=14,
        text="Under strong weight decay a network on MNIST collapses in rank and accuracy; with syre it does not.",
        where="Fig. 5 left",
        figure="fig5",
        metric="rank; accuracy; against no decay also: accuracy at the best γ",
        recommended=("fig5/rank-gamma-0.01", "fig5/accuracy-gamma-0.01"),
        best=("fig5/rank-gamma", "fig5/accuracy-gamma"),
        no_decay=("fig5/rank-no-decay", "fig5/accuracy-no-decay", "fig5/accuracy-no-decay-best"),
        rival=("fig5/rank-w-fix", "fig5/accuracy-w-fix"),
    ),
    Statement(
        number=15,
        text="On small inputs a network on MNIST collapses in rank and accuracy; with syre it does not.",
        where="Fig. 5 right",
        figure="fig5",
        metric="rank; accuracy",
        recommended=("fig5/rank-alpha-0.01", "fig5/accuracy-alpha-0.01"),
        best=("fig5/rank-alpha", "fig5/accuracy-alpha"),
        no_decay=("fig5/rank-no-decay-alpha", "fig5/accuracy-no-decay-alpha"),
        rival=("fig5/rank-w-fix-alpha", "fig5/accuracy-w-fix-alpha"),
    ),
    Statement(
        number=16,
        text="syre lifts the smallest eigenvalues of the representation, in proportion to the bias.",
        where="Fig. 8",
        figure="fig8",
        metric="median eigenvalue in decades, at two γ; at σ = 1 also: slope less 2 at two γ",
        recommended=("fig8/lift-0.01", "fig8/lift-0.01-strong"),
        best=("fig8/lift-1", "fig8/slope-0.01", "fig8/slope-0.1"),
        no_decay="fig8/lift-1-no-decay",
        rival="fig8/lift-1-w-fix",
    ),
    Statement(
        number=17,
        text="Label noise lowers the rank of a student network; with syre it does not.",
        where="Fig. 7",
        figure="fig7",
        metric="falls of decay alone, and changes of syre, in numerical and effective rank",
        recommended=(
            *("fig7/label-rank", "fig7/label-rank/effective"),
            *("fig7/label-rank-syre-0.01", "fig7/label-rank/effective-syre-0.01"),
        ),
        best=(
            *("fig7/label-rank", "fig7/label-rank/effective"),
            *("fig7/label-rank-syre-0.1", "fig7/label-rank/effective-syre-0.1"),
        ),
        no_decay=("fig7/no-decay-rank/effective-0.1", "fig7/no-decay-accuracy-0.1"),
        rival=NO_RIVAL,
    ),
    Statement(
        number=18,
        text="Under strong weight decay the encoder of a β-VAE loses its rank; with syre it does not.",
        where="Fig. 9 left",
        figure="fig9",
        metric="rank at β = 1; at β = 10",
        recommended=("fig9/rank-1-0.01", "fig9/rank-10-0.01"),
        best=("fig9/rank-1", "fig9/rank-10"),
        no_decay=("fig9/rank-1-no-decay", "fig9/rank-10-no-decay"),
        rival=NO_RIVAL,
    ),
    Statement(
        number=19,
        text="At β = 10 a β-VAE collapses to one blurred image; with syre it reconstructs.",
        where="Fig. 9 right, Fig. 10",
        figure="fig9",
        metric="reconstruction loss; whether the VAE has collapsed; against no decay: reconstruction, whole objective",
        recommended=("fig9/against-decay-0.01", "fig9/collapse-at-10"),
        best=("fig9/against-decay", "fig9/collapse-at-10"),
        no_decay=("fig9/reconstruction", "fig9/objective"),
        rival=NO_RIVAL,
    ),
    Statement(
        number=20,
        text="Of the last layer of SimCLR 70 % of the dimensions are unused; with syre none are.",
        where="Table 1",
        figure="table1",
        metric="minus the unused share at γ = 1e-4; head of 4 to 1: less than decay; a million images, γ = 0.1: minus "
        "the unused share. Against no decay: less at γ = 0.01",
        recommended=("table1/none-0.01", "table1_head/low-relative-0.01", "table1_long/none-relative-0.01-0.1"),
        best=("table1/none-best", "table1_head/low-relative-1", "table1_long/none-relative-1-0.1"),
        no_decay="table1/no-decay-low",
        rival=NO_RIVAL,
    ),
    Statement(
        number=21,
        text="The penultimate layer of SimCLR is better than the last one; syre closes half of the gap.",
        where="Table 1",
        figure="table1",
        metric="gap in accuracy and closed share less 42 %, at γ = 1e-4, of 80,000 images and of a million; against no "
        "decay: the last layer, of 80,000 images at the best σ, of a million at γ = 0.1 and σ = 1",
        recommended=("table1/gap-stays", "table1/closed", "table1_long/gap-stays", "table1_long/closed"),
        best=OF_SIGMA,
        no_decay=("table1/no-decay-last", "table1_long/no-decay-relative-1-0.1"),
        rival=NO_RIVAL,
    ),
    Statement(
        number=22,
        text="A network that learns one task after another loses its plasticity; with syre it does not.",
        where="Fig. 11",
        figure="fig11",
        metric="accuracy at the last task; rivals: decay alone, L2 Init, each as the best of seven",
        recommended="fig11/accuracy-decay-0.01",
        best="fig11/accuracy-decay",
        no_decay="fig11/no-decay",
        rival=("fig11/budget-weight_decay", "fig11/budget-l2_init"),
    ),
    Statement(
        number=23,
        text="On Slippery Ant PPO with syre keeps rank and return, above PPO with weight decay and above PPO.",
        where="Fig. 6",
        figure="fig6b",
        metric="rank in % of the units; return",
        recommended=("fig6b/rank-99-decay-0.01", "fig6b/return-decay-0.01"),
        best=("fig6b/rank-99-decay-1", "fig6b/return-decay-1"),
        no_decay=("fig6b/rank-99-vanilla-1", "fig6b/return-vanilla-1"),
        rival=NO_RIVAL,
    ),
    Statement(
        number=24,
        text="A vision transformer collapses under strong weight decay and on small inputs; with syre it does not.",
        where="Fig. 12",
        figure="fig12",
        metric="accuracy under strong decay; on small inputs",
        recommended=("fig12/accuracy-gamma-0.01", "fig12/accuracy-alpha-0.01"),
        best=("fig12/accuracy-gamma", "fig12/accuracy-alpha"),
        no_decay=("fig12/accuracy-gamma-no-decay", "fig12/accuracy-alpha-no-decay"),
        rival=("fig12/accuracy-gamma-w-asym", "fig12/accuracy-alpha-w-asym"),
    ),
    Statement(
        number=25,
        text="Between two networks trained with syre there is no barrier, as between W-asymmetric ones.",
        where="Fig. 13",
        figure="fig13",
        metric="barrier (nats); at γ = 5 also: what the anchored decay adds to a shared start",
        recommended="fig13/barrier-0.01",
        best=("fig13/barrier", "fig13_gamma/adds-5"),
        no_decay="fig13/no-decay",
        rival="fig13/w-asym-barrier",
    ),
    Statement(
        number=26,
        text="syre costs next to no time and memory.",
        where="Tables 2 and 3",
        figure="table2",
        metric="minus the time added (below 2 %) and minus the memory added (below 10 %), for three networks",
        recommended=(
            *(f"table2/attach-2-{network}" for network in ("mlp", "resnet18", "vit")),
            *(f"table3/memory-{network}" for network in ("mlp", "resnet18", "vit")),
        ),
        best=NO_SIGMA,
        no_decay="compared with the same training without syre",
        rival=NO_RIVAL,
    ),
)
