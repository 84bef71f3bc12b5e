"""Section 5.3: how strongly the reflections of a loss are broken."""

from dataclasses import dataclass
from math import pi, sqrt
from typing import ClassVar

import torch
from torch import Tensor
from torch.func import vmap

from syre.checks import above, among, open_fraction, positive
from syre.core import attach_anchors
from syre.theory.numerics import Function, diagonal, gaussian, gradient, hessian, minimise
from syre.theory.propositions import Flat, with_copies
from syre.theory.symmetry import anchored, project, reflect, teacher_student
from syre.trainer import Measurement


def breaking(f: Function, phi: Tensor, normals: Tensor) -> Tensor:
    """Eq. (8) with its sign: `[f(phi) - f((I - 2P) phi)] / |P phi|`; phi [..., d] -> [...].

    For syre it is `-4 gamma n^T theta_0`, `n = P phi / |P phi|`.
    """
    return (f(phi) - f(reflect(phi, normals))) / project(phi, normals).norm(dim=-1)


@dataclass(frozen=True, kw_only=True)
class _Strength(Measurement):
    inputs: int = 3
    neurons: int = 4
    outputs: int = 2
    gamma: float = 0.1
    sigma: float = 0.1
    draws: int = 1000
    ranges: ClassVar = dict.fromkeys(("inputs", "outputs", "gamma", "sigma", "draws"), positive) | {"neurons": above(2)}


@dataclass(frozen=True, kw_only=True)
class Theorem3(_Strength):
    """Theorem 3 where it is exact: at a given phi the broken difference is Gaussian of std 4 gamma sigma.

    The swap of two neurons of a tanh network, over `draws` draws of theta_0 at one random phi. Measures the std of Eq.
    (8), `std`, and over 4 gamma sigma, `ratio`; `ratio/advanced`, the same with D, sigma_d = sigma / 100.
    """

    def measure(self, seed: int) -> dict[str, float]:
        net = teacher_student(seed, inputs=self.inputs, neurons=self.neurons, outputs=self.outputs)
        phi, theta_0 = gaussian(seed, "phi", net.dims), self.sigma * gaussian(seed, "theta_0", self.draws, net.dims)
        scales = diagonal(seed, net.dims, self.sigma / 100)
        stds = [
            breaking(anchored(net.loss, self.gamma, theta_0, d), phi, net.swap(0, 1)).std().item()
            for d in (torch.ones_like(scales), scales)
        ]
        exact = 4 * self.gamma * self.sigma
        return {"std": stds[0], "ratio": stds[0] / exact, "ratio/advanced": stds[1] / exact}


@dataclass(frozen=True, kw_only=True)
class Theorem3Minima(_Strength):
    """Theorem 3 as it is used: at local minima of the regularised loss, which depend on theta_0.

    One minimum for each draw of theta_0, from a random start. Measures Eq. (8) over 4 gamma sigma for the swap of two
    neurons: its `rms`, and `weak`, the fraction of minima below a tenth (0.08 for a Gaussian). `converged`: the
    fraction whose gradient is below 1e-7 and whose Hessian is positive; the others are left out.
    """

    def measure(self, seed: int) -> dict[str, float]:
        net = teacher_student(seed, inputs=self.inputs, neurons=self.neurons, outputs=self.outputs)
        theta_0 = self.sigma * gaussian(seed, "theta_0", self.draws, net.dims)
        one = lambda phi, anchor: anchored(net.loss, self.gamma, anchor)(phi)  # noqa: E731
        phi = minimise(one, gaussian(seed, "starts", self.draws, net.dims), theta_0)
        f = anchored(net.loss, self.gamma, theta_0)
        curvature = vmap(lambda p, anchor: hessian(anchored(net.loss, self.gamma, anchor), p))(phi, theta_0)
        minima = (gradient(f, phi).norm(dim=1) < 1e-7) & (torch.linalg.eigvalsh(curvature)[:, 0] > 0)
        delta = breaking(f, phi, net.swap(0, 1)).abs()[minima] / (4 * self.gamma * self.sigma)
        return {
            "rms": delta.square().mean().sqrt().item(),
            "weak": (delta < 0.1).double().mean().item(),
            "converged": minima.double().mean().item(),
        }


@dataclass(frozen=True, kw_only=True)
class Corollary1(_Strength):
    """Corollary 1: at a symmetric point the gradient along P is `2 gamma sigma sqrt(rank P)` in the rms, not 0.

    Two equal neurons of a tanh network, P of their swap, over `draws` draws of theta_0. Measures the `rms` of |P grad|;
    its `ratio` to the law; `plain`, without a bias; and `ratio/torch`: the first step of torch's SGD with
    `weight_decay` = gamma and syre attached, over its learning rate and half of the law, as torch's decay is that of
    (gamma / 2) |theta|^2.
    """

    def measure(self, seed: int) -> dict[str, float]:
        net = teacher_student(seed, inputs=self.inputs, neurons=self.neurons, outputs=self.outputs)
        normals, phi = net.swap(0, 1), with_copies(net, gaussian(seed, "phi", net.dims), 2)
        theta_0 = self.sigma * gaussian(seed, "theta_0", self.draws, net.dims)
        along, plain = (
            project(gradient(anchored(net.loss, self.gamma, anchor), phi.expand_as(theta_0)), normals)
            for anchor in (theta_0, 0.0)
        )
        steps = torch.stack([self._step(net.loss, phi, anchor) for anchor in theta_0[:100]])
        exact = 2 * self.gamma * self.sigma * sqrt(normals.shape[1])
        rms = _rms_norm(along)
        return {
            "rms": rms,
            "ratio": rms / exact,
            "plain": _rms_norm(plain),
            "ratio/torch": _rms_norm(project(steps, normals)) / (exact / 2),
        }

    def _step(self, loss: Function, phi: Tensor, theta_0: Tensor, lr: float = 0.1) -> Tensor:
        model = Flat(phi)
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, weight_decay=self.gamma)
        attach_anchors(optimizer, model, {"theta": theta_0})
        loss(model.theta).backward()
        optimizer.step()
        return (model.theta.detach() - phi) / lr


def _rms_norm(vectors: Tensor) -> float:
    return vectors.square().sum(-1).mean().sqrt().item()


@dataclass(frozen=True, kw_only=True)
class Theorem4(_Strength):
    """Theorem 4: the weakest of N broken reflections is of order gamma sigma / N.

    At one random phi of a tanh network of n neurons, over `draws` draws of theta_0: Eq. (9), the minimum of Eq. (8)
    over N reflections, the n sign `flips`, which are independent, or the n (n - 1) / 2 `swaps`, which are not. Measures
    `reflections`, N; the `median` of the minimum over 4 gamma sigma; and `frequency`, that of a minimum below the
    epsilon at which the union bound says delta: `2 N epsilon / (sqrt(2 pi) 4 gamma sigma) = delta`.
    """

    kind: str = "flips"
    delta: float = 0.1
    ranges: ClassVar = {"kind": among("flips", "swaps"), "delta": open_fraction}

    def measure(self, seed: int) -> dict[str, float]:
        block = self.inputs + self.outputs
        phi = gaussian(seed, "phi", self.neurons, block)
        theta_0 = self.sigma * gaussian(seed, "theta_0", self.draws, self.neurons, block)
        exact = 4 * self.gamma * self.sigma
        smallest = self.gamma * weakest(phi, theta_0, self.kind) / exact
        count = self.neurons if self.kind == "flips" else self.neurons * (self.neurons - 1) // 2
        bound = self.delta * sqrt(2 * pi) / (2 * count)
        return {
            "reflections": count,
            "median": smallest.median().item(),
            "frequency": (smallest < bound).double().mean().item(),
        }


def weakest(phi: Tensor, theta_0: Tensor, kind: str) -> Tensor:
    """`min_i 4 |n_i^T theta_0|` over all sign flips or swaps; phi [n, block], theta_0 [draws, n, block] -> [draws]."""
    if kind == "flips":
        return 4 * ((theta_0 * phi).sum(-1) / phi.norm(dim=-1)).abs().amin(-1)
    i, j = torch.triu_indices(len(phi), len(phi), 1)
    normals = (phi[i] - phi[j]) / (phi[i] - phi[j]).norm(dim=-1, keepdim=True) / sqrt(2)
    return 4 * ((theta_0[:, i] - theta_0[:, j]) * normals).sum(-1).abs().amin(-1)
