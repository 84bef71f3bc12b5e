"""Variational autoencoders: the beta-ELBO, and how many latent dimensions are in use."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from syre import metrics
from syre.batches import Batches
from syre.checks import all_indices, all_positive, at_least, check, positive
from syre.learners import Learner
from syre.seeding import generator
from syre.tasks import needs
from syre.trainer import Task, Training

ACTIVE = 0.01  # variance of the mean above which a latent unit is active (Burda et al.)


@dataclass(frozen=True, kw_only=True)
class VariationalAutoencoder(Task):
    """Minimise `|x - x_hat|^2 / 2 + beta KL(N(m, diag exp(v)) || N(0, I))`, in nats per image.

    Source: Wang & Ziyin 2022 (arXiv 2205.04009) with decoder and prior variance 1; |.|^2 sums over pixels.

    Measures on the test set, z drawn once for all runs: `loss`, `reconstruction` (the first term) and `kl` (without
    beta); at z = m, `reconstruction/mean` and `reconstruction/variance`, the variance of x_hat over the images, summed
    over pixels: 0 if every image becomes the same. `rank/<t>` counts the eigenvalues of the covariance of m above t,
    absolute: only so can small but nonzero features have rank 0. `rank` is the one at `threshold`. `rank/effective`
    does not depend on the scale of m; `active` counts units of m with variance above 0.01 (Burda et al. 2016).

    At the end also:

    - `pca/<i>`, i <= `components`: the i-th eigenvalue of the covariance of the training inputs. A linear VAE uses
      mode i while beta is below it (Wang & Ziyin 2022).
    - `reconstruction/linear`, with them: that of the best linear VAE, `sum_i min(pca_i, beta) / 2`.
    - `pixel/<k>/<i>` for each test image k of `images`: pixel i of its reconstruction at z = m, to two digits, and, if
      `originals`, `original/<k>/<i>`.
    """

    name: ClassVar[str] = "variational_autoencoder"
    beta: float = 1.0
    thresholds: list[float] = field(default_factory=lambda: [1e-6, 1e-5, 1e-4, 1e-3, 1e-2])
    threshold: float = 3e-5
    components: int = 0
    images: list[int] = field(default_factory=list)
    originals: bool = False
    ranges: ClassVar = {"beta": at_least, "threshold": positive, "thresholds": all_positive}
    ranges |= {"components": at_least, "images": all_indices}

    def accept(self, model: nn.Module, data: Any, settings: Training) -> None:
        needs.data_set(self.name, data)
        needs.model(self.name, model, "an autoencoder")
        last, there = max(self.images, default=0), len(data.test_inputs)
        check(last < there, f"task.images must list test images, of which there are {there}, from 0, got {last}")

    def loss(self, output: tuple[Tensor, Tensor, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        reconstruction, mean, log_variance = output
        error = squared_error(reconstruction, inputs)
        return (error + self.beta * kl_divergence(mean, log_variance)).mean(-1)

    def evaluate(self, learner: Learner, batches: Batches, *, final: bool) -> dict[str, Tensor]:
        stream = generator(0, "latent")
        terms: dict[str, list[Tensor]] = {"reconstruction": [], "kl": [], "reconstruction/mean": []}
        means, moments = [], []
        for inputs, _ in batches.evaluation("test"):
            mean, log_variance = learner.forward(inputs, part="encoder")
            noise = torch.randn(mean.shape[1:], generator=stream).to(mean, non_blocking=True)
            sampled, typical = (
                learner.forward(code, part="decoder") for code in (mean + (log_variance / 2).exp() * noise, mean)
            )
            terms["reconstruction"].append(squared_error(sampled, inputs))
            terms["reconstruction/mean"].append(squared_error(typical, inputs))
            terms["kl"].append(kl_divergence(mean, log_variance))
            moments.append(torch.stack([typical.double().sum(1), typical.double().square().sum(1)]))
            means.append(mean)
        values = {name: torch.cat(parts, 1).double().mean(1) for name, parts in terms.items()}
        values["loss"] = values["reconstruction"] + self.beta * values["kl"]
        first, second = torch.stack(moments).sum(0) / sum(mean.shape[1] for mean in means)
        values["reconstruction/variance"] = (second - first.square()).clamp(min=0).sum(-1)
        values |= self._ranks(torch.cat(means, 1))
        if final:
            values |= self._components(batches) | self._pixels(learner, batches)
        return values

    def _ranks(self, means: Tensor) -> dict[str, Tensor]:
        eigenvalues = metrics.covariance_spectrum(means)
        ranks = {f"rank/{t:g}": metrics.threshold_rank(eigenvalues, t, relative=False) for t in self.thresholds}
        variances = means.double().var(1, correction=0)
        return {
            "rank": metrics.threshold_rank(eigenvalues, self.threshold, relative=False),
            **ranks,
            "rank/effective": metrics.effective_rank(eigenvalues.sqrt()),
            "active": (variances > ACTIVE).sum(-1).double(),
        }

    def _components(self, batches: Batches) -> dict[str, Tensor]:
        if not self.components:
            return {}
        inputs = torch.cat([chunk.flatten(2) for chunk, _ in batches.evaluation("train")], 1)
        eigenvalues = metrics.covariance_spectrum(inputs)
        linear = eigenvalues.clamp(max=self.beta).sum(-1) / 2
        return {"reconstruction/linear": linear} | {
            f"pca/{i + 1}": eigenvalues[:, i] for i in range(min(self.components, eigenvalues.shape[1]))
        }

    def _pixels(self, learner: Learner, batches: Batches) -> dict[str, Tensor]:
        if not self.images:
            return {}
        inputs = torch.cat([chunk for chunk, _ in batches.evaluation("test")], 1)[:, list(self.images)]
        mean, _ = learner.forward(inputs, part="encoder")
        shown = {"pixel": learner.forward(mean, part="decoder")}
        if self.originals:
            shown["original"] = inputs.flatten(2)
        return {
            f"{name}/{k}/{i}": images[:, row, i].double().round(decimals=2)
            for name, images in shown.items()
            for row, k in enumerate(self.images)
            for i in range(images.shape[-1])
        }


def squared_error(reconstruction: Tensor, inputs: Tensor) -> Tensor:
    """`|x - x_hat|^2 / 2` of each image, summed over pixels: [..., batch, pixels], inputs of any shape -> [..., batch].

    A Gaussian decoder of unit variance, without its constant.
    """
    return (reconstruction - inputs.reshape(reconstruction.shape)).square().sum(-1) / 2


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """`KL(N(m, diag exp(v)) || N(0, I)) = sum_i (m_i^2 + exp(v_i) - 1 - v_i) / 2`, nats: [..., d] twice -> [...]."""
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1) / 2
