"""Randomness inside a forward pass, drawn outside it.

A module that needs noise keeps it in a buffer, `noise`, which the trainer refills before each step from the generator
of the run. So a run follows the same trajectory alone and as one replica of an ensemble (`torch.nn.Dropout` draws from
one global stream, which replicas would share).
"""

from torch import Generator, Tensor, nn, rand, zeros


class Noisy(nn.Module):
    """A module with a `noise` buffer; `draw` gives one batch of it, `is_active` says whether it matters now."""

    noise: Tensor

    def __init__(self, *features: int) -> None:
        super().__init__()
        self.features = features
        self.register_buffer("noise", zeros(0), persistent=False)

    def is_active(self) -> bool:
        raise NotImplementedError

    def draw(self, batch: int, generator: Generator) -> Tensor:
        """Noise of shape [batch, *features], on the device of the generator."""
        raise NotImplementedError


class Dropout(Noisy):
    """Inverted dropout, `x -> x * m / (1 - rate)` with `m ~ Bernoulli(1 - rate)`; `rate` is a buffer, 0 until set.

    Source: Srivastava et al. 2014. Shapes: x [..., batch, *features]; rate [...] (one per replica).
    """

    rate: Tensor

    def __init__(self, *features: int) -> None:
        super().__init__(*features)
        self.register_buffer("rate", zeros(()))

    def is_active(self) -> bool:
        return bool(self.rate > 0)

    def draw(self, batch: int, generator: Generator) -> Tensor:
        return rand(batch, *self.features, generator=generator, device=generator.device)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.noise.numel() == 0:
            return x
        rate = self.rate.view(*self.rate.shape, *(1,) * (x.dim() - self.rate.dim())).to(x)
        return x * (self.noise >= rate) / (1 - rate)
