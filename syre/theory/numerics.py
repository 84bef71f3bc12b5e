"""What the statements are measured by: random draws, derivatives, and a solver; everything is float64."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, jacrev, vmap

from syre.core import philox

Function = Callable[..., Tensor]  # parameters [..., d] -> [...]


def gaussian(seed: int, name: str, *shape: int) -> Tensor:
    """The standard normal draw that belongs to (seed, name); the same on every machine."""
    return torch.from_numpy(philox(seed, "theory", name).standard_normal(shape))


def diagonal(seed: int, dims: int, sigma_d: float) -> Tensor:
    """D of Eq. (7): `D_ii ~ U(1 - sqrt(3) sigma_d, 1 + sqrt(3) sigma_d)`, [dims]."""
    return 1 + 3**0.5 * sigma_d * (2 * torch.from_numpy(philox(seed, "theory", "D").random(dims)) - 1)


def gradient(f: Function, at: Tensor) -> Tensor:
    """The gradient of f at each point [..., d]."""
    at = at.detach().clone().requires_grad_()
    return torch.autograd.grad(f(at).sum(), at)[0]


def hessian(f: Function, at: Tensor) -> Tensor:
    """The Hessian of f at one point [d], [d, d]."""
    return jacrev(grad(f))(at)  # reverse over reverse: for a few parameters twice as fast as forward over reverse


def minimise(f: Function, start: Tensor, *given: Tensor, steps: int = 60) -> Tensor:
    """A local minimum of `f(v, *given)` from every start [s, p]; f takes one row of each.

    Newton's method with the absolute values of the Hessian's eigenvalues, so that saddles repel, and a damping for each
    start that falls while the value does.
    """
    twice = lambda v, *given: (slope := grad(f)(v, *given), slope)  # noqa: E731
    value, expand = vmap(f), vmap(jacrev(twice, has_aux=True))
    v, damping = start, torch.full_like(start[:, :1], 1e-2)
    height = value(v, *given)
    for _ in range(steps):
        curvature, slope = expand(v, *given)
        values, vectors = torch.linalg.eigh(curvature)
        along = (vectors.mT @ slope.unsqueeze(-1)).squeeze(-1) / (values.abs() + damping)
        trial = v - (vectors @ along.unsqueeze(-1)).squeeze(-1)
        new = value(trial, *given)
        better = (new < height).unsqueeze(1)
        v, height = torch.where(better, trial, v), torch.minimum(new, height)
        damping = torch.where(better, damping / 5, damping * 4).clamp(1e-12, 1e12)
    return v
