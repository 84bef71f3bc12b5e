"""Contrastive learning: NT-Xent, how much of its dimensions the projections use, and what linear probes read off."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from syre import distributed, metrics
from syre.batches import Batches
from syre.checks import all_fractions, all_ranks, at_least, check, open_fraction, positive
from syre.learners import Learner
from syre.tasks import needs
from syre.tasks.classification import represented
from syre.trainer import Task, Training


@dataclass(frozen=True, kw_only=True)
class Contrastive(Task):
    """SimCLR: two views of an image are to be more alike than views of different images (`nt_xent`).

    The data must give two views of each image (`data.augment: simclr`), the model `(projections, features)`: its last
    layer, not normalised, and the penultimate one, which the projection head starts from. Evaluated in the precision
    of the weights, on the test set:

    - `loss`, of augmented views drawn the same for all runs, in batches as large as those of the training;
    - `low_rankness/<t>`, the share in [0, 1] of the eigenvalues of the covariance of the projections that are below t
      times the largest, for each of `thresholds`; `low_rankness` is the one at `threshold`. The paper prints no
      threshold;
    - the ranks of `metrics.ranks`, of the projections, and, as `penultimate/rank`, ..., of the features.

    At the end also:

    - `accuracy`, `accuracy/penultimate`: of linear probes (`metrics.linear_probe`) on the two, trained on the training
      images as they are, not augmented;
    - `eigenvalue/<i>`, the i-th largest of the covariance of the projections, for each i of `spectrum`.

    Args:
        temperature: tau of the loss.
        probe_decay: of the probes' weights.
    """

    name: ClassVar[str] = "contrastive"
    temperature: float = 0.5
    thresholds: list[float] = field(default_factory=lambda: [10.0**-k for k in range(1, 7)])
    threshold: float = 1e-4
    spectrum: list[int] = field(default_factory=list)
    probe_decay: float = 1e-3
    ranges: ClassVar = {"temperature": positive, "threshold": open_fraction}
    ranges |= {"thresholds": all_fractions, "spectrum": all_ranks, "probe_decay": at_least}

    def accept(self, model: nn.Module, data: Any, settings: Training) -> None:
        needs.classes(self.name, data, views=2)  # for the probes
        needs.model(self.name, model, "projections", "logits")
        needs.batch(model, data, settings)

    def loss(self, output: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """Over the views of all processes that train the run."""
        views = _views(_wide(output), targets.shape[-1]).unbind(-3)
        return nt_xent(torch.cat([distributed.gather(view) for view in views], -2), self.temperature)

    def evaluate(self, learner: Learner, batches: Batches, *, final: bool) -> dict[str, Tensor]:
        projections, features, labels = represented(learner, batches, "test")
        eigenvalues, size = metrics.covariance_spectrum(projections), projections.shape[-1]
        low = {t: 1 - metrics.threshold_rank(eigenvalues, t) / size for t in (self.threshold, *self.thresholds)}
        values = {"loss": self._test_loss(learner, batches), "low_rankness": low[self.threshold]}
        values |= {f"low_rankness/{t:g}": low[t] for t in self.thresholds}
        values |= metrics.ranks(projections)
        values |= {f"penultimate/{name}": rank for name, rank in metrics.ranks(features).items()}
        if final:
            values |= {f"eigenvalue/{i}": eigenvalues[..., i - 1] for i in self.spectrum if i <= size}
            *train, train_labels = represented(learner, batches, "train")
            for name, seen, unseen in (("", train[0], projections), ("/penultimate", train[1], features)):
                probe = metrics.linear_probe(seen, train_labels, unseen, labels, decay=self.probe_decay)
                values[f"accuracy{name}"] = probe
        return values

    def _test_loss(self, learner: Learner, batches: Batches) -> Tensor:
        chunks = batches.evaluation("test", augmented=True)
        views = torch.cat([_views(learner.forward(inputs), targets.shape[1]) for inputs, targets in chunks], 2)
        batch = min(batches.batch_size, views.shape[2])
        whole = views.shape[2] // batch * batch
        groups = views[:, :, :whole].unflatten(2, (-1, batch)).transpose(1, 2).flatten(2, 3)
        return nt_xent(groups, self.temperature).mean(-1)


def _views(output: Tensor, images: int) -> Tensor:
    """[..., 2 * images, out] -> [..., 2, images, out]."""
    got = output.shape[-2]
    needed = "task=contrastive needs two views of each image, as data.augment=simclr gives them"
    check(got == 2 * images, f"{needed}; got {got} views of {images} images")
    return output.unflatten(-2, (2, images))


def nt_xent(projections: Tensor, temperature: float) -> Tensor:
    """The loss of Chen et al. 2020 (arXiv 2002.05709, Eq. 1), averaged over all 2B views: [..., 2B, out] -> [...].

    `- log exp(s_ij / tau) / sum_{k != i} exp(s_ik / tau)` of view i, where j is the other view of its image and s the
    cosine. First the first views of all images, then the second. In float32 at least, also under autocast.
    """
    with torch.autocast(projections.device.type, enabled=False):
        z = nn.functional.normalize(_wide(projections), dim=-1)
        views = z.shape[-2]
        itself = torch.eye(views, dtype=torch.bool, device=z.device)
        similarity = (z @ z.mT / temperature).masked_fill(itself, -torch.inf)
        partner = (z * z.roll(views // 2, -2)).sum(-1) / temperature
        return (similarity.logsumexp(-1) - partner).mean(-1)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
