"""Language modelling: the loss of the next token, the ranks of attention, and of what the network represents."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from syre import metrics
from syre.batches import Batches
from syre.checks import count
from syre.learners import Learner
from syre.models.gpt import GPTModule, attention_pairs
from syre.tasks import needs
from syre.tasks.classification import cross_entropy
from syre.trainer import Task, Training

Values = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Language(Task):
    """Cross-entropy of the next token in nats; measures it, and ranks, on the held-out text.

    - `loss`, `bits` (per token, so per byte where tokens are bytes) and `accuracy` over the held-out windows.
    - `rank`, `rank/effective`, `rank/stable`, `rank/99`: of the residual stream after the last block, at every token of
      the first `windows` windows, [tokens, width]; `rank/effective/<l>`: after block l, from 0.
    - `query_key/rank`, `query_key/rank/effective`, `query_key/rank/stable`: of the W_Q^T W_K of each head, a matrix
      [width, width] of rank head size at most; the mean over heads and blocks. `query_key/rank/effective/<l>`: over the
      heads of block l. `output_value/...`: the same of W_O W_V.
    - `norm`: the length of all parameters.
    """

    name: ClassVar[str] = "language"
    windows: int = 64
    ranges: ClassVar = {"windows": count}

    def accept(self, model: nn.Module, data: Any, settings: Training) -> None:
        needs.tokens(self.name, data)
        needs.model(self.name, model, "next tokens")

    def loss(self, output: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(output.flatten(-3, -2), targets.flatten(-2))

    def evaluate(self, learner: Learner, batches: Batches, *, final: bool) -> Values:
        first, _ = next(batches.evaluation("test"))
        _, stream = learner.forward(first[:, : self.windows], features=True)
        values = _held_out(learner, batches) | _of_stream(stream) | _of_attention(learner)
        values["norm"] = torch.stack([p.flatten(1).double().norm(dim=1) for p in learner.parameters().values()]).norm(
            dim=0
        )
        return values


def _held_out(learner: Learner, batches: Batches) -> Values:
    losses, right, tokens = [], [], []
    for inputs, targets in batches.evaluation("test"):
        logits, targets = learner.forward(inputs).flatten(1, 2), targets.flatten(1)
        losses.append(cross_entropy(logits, targets).double())
        right.append(metrics.accuracy(logits, targets))
        tokens.append(targets.shape[1])
    shares = torch.tensor(tokens, dtype=torch.float64, device=losses[0].device) / sum(tokens)
    loss = shares @ torch.stack(losses)
    return {"loss": loss, "bits": loss / math.log(2), "accuracy": shares @ torch.stack(right)}


def _of_stream(stream: Tensor) -> Values:
    """Ranks of the residual stream [R, windows, blocks, tokens, width]."""
    found = metrics.ranks(stream.transpose(1, 2).flatten(2, 3))  # each [R, blocks]
    return {name: ranks[:, -1] for name, ranks in found.items()} | _by_block("rank/effective", found["rank/effective"])


def _of_attention(learner: Learner) -> Values:
    heads, values = cast(GPTModule, learner.replicas[0].model).heads, Values()
    for product, (a, b) in attention_pairs(learner.parameters(), heads).items():
        singular = metrics.singular_values_of_product(a, b)  # [R, blocks, heads, head size]
        effective = metrics.effective_rank(singular).mean(-1)
        values |= {
            f"{product}/rank": metrics.numerical_rank(singular, a.shape[-1]).mean((-1, -2)),
            f"{product}/rank/effective": effective.mean(-1),
            f"{product}/rank/stable": metrics.stable_rank(singular).mean((-1, -2)),
        }
        values |= _by_block(f"{product}/rank/effective", effective)
    return values


def _by_block(name: str, ranks: Tensor) -> Values:
    """From [R, blocks]."""
    return {f"{name}/{block}": ranks[:, block] for block in range(ranks.shape[1])}
