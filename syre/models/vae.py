"""Variational autoencoders."""

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from torch import Generator, Tensor, nn, randn

from syre.checks import among, count
from syre.models.base import Architecture, Model
from syre.models.mlp import ACTIVATIONS, MLPModule
from syre.models.noise import Noisy


class Reparametrized(Noisy):
    """`z = m + exp(v / 2) e` with `e ~ N(0, I)` in training, `z = m` in evaluation and before the first noise.

    Source: Kingma & Welling 2013 (arXiv 1312.6114). Shapes: mean m and log-variance v [..., batch, *features].
    """

    def is_active(self) -> bool:
        return True

    def draw(self, batch: int, generator: Generator) -> Tensor:
        return randn(batch, *self.features, generator=generator, device=generator.device)

    def forward(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        if not self.training or self.noise.numel() == 0:
            return mean
        return mean + (log_variance / 2).exp() * self.noise


class BetaVAEModule(Model):
    """`(m, v) = encoder(x)`, `z = m + exp(v / 2) e`, `x_hat = decoder(z)`, two fully connected networks.

    Of the two only the encoder decays, and so only it has anchors.
    """

    gives = "an autoencoder"
    leading_dims = True
    decayed = ("encoder",)

    def __init__(self, pixels: int, hidden: int, latent: int, activation: type[nn.Module], input_dims: int = 1) -> None:
        super().__init__()
        self.encoder = MLPModule([pixels, hidden, 2 * latent], activation, input_dims)
        self.sample = Reparametrized(latent)
        self.decoder = MLPModule([latent, hidden, pixels], activation)

    def forward(self, x: Tensor, part: str = "all") -> Tensor | tuple[Tensor, ...]:
        """Reconstruction [..., batch, pixels], mean and log-variance [..., batch, latent], of x [..., batch, *shape].

        With part="encoder", mean and log-variance alone; with "decoder", x is a latent code [..., batch, latent], and
        the result its reconstruction.
        """
        if part == "decoder":
            return self.decoder(x)
        mean, log_variance = self.encoder(x).chunk(2, -1)
        if part == "encoder":
            return mean, log_variance
        return self.decoder(self.sample(mean, log_variance)), mean, log_variance


@dataclass(frozen=True, kw_only=True)
class BetaVAE(Architecture):
    """Two-layer encoder and decoder with Gaussian posterior N(m, diag exp(v)) (section 6.4).

    m and v are the two halves of one output layer; the widths, which the paper's text has lost, are our choice.
    """

    hidden: int = 200
    latent: int = 200
    activation: str = "silu"
    ranges: ClassVar = {"hidden": count, "latent": count, "activation": among(*ACTIVATIONS)}

    def build(self, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
        kind = ACTIVATIONS[self.activation]
        return BetaVAEModule(prod(input_shape), self.hidden, self.latent, kind, len(input_shape))
