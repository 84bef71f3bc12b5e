"""Tasks whose networks are diagnosed too: what `syre.diagnose` says of them, beside what the task measures.

The loss is that of the task, and a diagnosis looks at copies: a run takes the very steps that it takes without.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from syre.batches import Batches
from syre.checks import positive
from syre.diagnostics import Diagnosis
from syre.diagnostics.advice import COMBINED, SCORES
from syre.diagnostics.diagnose import diagnose
from syre.learners import Learner
from syre.tasks.classification import Classification
from syre.tasks.collapse import CollapsedStart
from syre.tasks.vae import VariationalAutoencoder

PARTS = ("twins", "dead", "symmetric")  # of the units


def diagnoses(learner: Learner, batches: Batches, images: int) -> dict[str, Tensor]:
    """What the diagnosis of each replica says, [R] each, by its first test images at its own input scale.

    - `score/<name>`: each of `SCORES`, but the largest of several, which follow from these: large where a network has
      collapsed; NaN where it cannot be told, and left out where it cannot be told of any;
    - `score/weights-alone/<name>`: the same of a diagnosis that sees no images;
    - `units/twins`, `units/dead`, `units/symmetric`: shares in [0, 1] of all interchangeable units.
    """
    found = []
    for network, inputs in zip(networks(learner), first(batches, images), strict=True):
        seen = diagnose(network, [inputs])
        scores = _scores("score", seen) | _scores("score/weights-alone", diagnose(network))
        found.append(scores | _shares(seen))
    values = {name: torch.tensor([of[name] for of in found], dtype=torch.float64) for name in found[0]}
    return {name: value for name, value in values.items() if not value.isnan().all()}


def networks(learner: Learner) -> Iterator[nn.Module]:
    """A copy of each network, in evaluation: the weights of an ensemble lie elsewhere than in its modules."""
    parameters = learner.parameters()
    for k, replica in enumerate(learner.replicas):
        network = copy.deepcopy(replica.model).eval()
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.copy_(parameters[name][k])
        yield network


def first(batches: Batches, images: int) -> Tensor:
    """The first test images, [R, images, ...]; fewer where there are not so many."""
    chunks: list[Tensor] = []
    for inputs, _ in batches.evaluation("test"):
        chunks.append(inputs)
        if sum(chunk.shape[1] for chunk in chunks) >= images:
            break
    return torch.cat(chunks, 1)[:, :images]


def _scores(prefix: str, diagnosis: Diagnosis) -> dict[str, float]:
    return {f"{prefix}/{name}": _number(score(diagnosis)) for name, score in SCORES.items() if name not in COMBINED}


def _number(score: float | None) -> float:
    return float("nan") if score is None else float(score)


def _shares(diagnosis: Diagnosis) -> dict[str, float]:
    units = diagnosis["units"]
    count = sum(layer["count"] for layer in units)
    return {f"units/{part}": sum(layer[part] for layer in units) / count if count else float("nan") for part in PARTS}


@dataclass(frozen=True, kw_only=True)
class DiagnosedClassification(Classification):
    """Classification; at each evaluation also `diagnoses`, by the first `diagnosed` test images.

    The first evaluation is of networks that are not trained yet.
    """

    name: ClassVar[str] = "diagnosed_classification"
    diagnosed: int = 512
    ranges: ClassVar = {"diagnosed": positive}

    def evaluate(self, learner: Learner, batches: Batches, *, final: bool) -> dict[str, Tensor]:
        return super().evaluate(learner, batches, final=final) | diagnoses(learner, batches, self.diagnosed)


@dataclass(frozen=True, kw_only=True)
class DiagnosedStart(CollapsedStart):
    """CollapsedStart; at each evaluation also `diagnoses`, as DiagnosedClassification has them."""

    name: ClassVar[str] = "diagnosed_start"
    diagnosed: int = 512
    ranges: ClassVar = {"diagnosed": positive}

    def evaluate(self, learner: Learner, batches: Batches, *, final: bool) -> dict[str, Tensor]:
        return super().evaluate(learner, batches, final=final) | diagnoses(learner, batches, self.diagnosed)


@dataclass(frozen=True, kw_only=True)
class DiagnosedAutoencoder(VariationalAutoencoder):
    """VariationalAutoencoder; at each evaluation also `diagnoses`, as DiagnosedClassification has them."""

    name: ClassVar[str] = "diagnosed_autoencoder"
    diagnosed: int = 512
    ranges: ClassVar = {"diagnosed": positive}

    def evaluate(self, learner: Learner, batches: Batches, *, final: bool) -> dict[str, Tensor]:
        return super().evaluate(learner, batches, final=final) | diagnoses(learner, batches, self.diagnosed)
