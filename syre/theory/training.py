"""What the statements mean for training: a linear model's biased solution, the escape from a symmetric saddle."""

from dataclasses import dataclass
from math import inf, log1p
from typing import ClassVar

import torch
from torch import Tensor
from torch.func import vmap

from syre.checks import at_least, check, positive
from syre.core import attach_anchors
from syre.theory.numerics import diagonal, gaussian, gradient, hessian, minimise
from syre.theory.propositions import Flat, copies_normals
from syre.theory.symmetry import Network, anchored, project, teacher_student
from syre.trainer import Measurement


def ridge(x: Tensor, y: Tensor, gamma: float, theta_0: Tensor, scales: Tensor) -> Tensor:
    """Eq. (13) with D: `(A + gamma D)^-1 (b + gamma D theta_0)`, with `A = X^T X / n` and `b = X^T y / n`.

    The minimum of `|X w - y|^2 / n + gamma |w - theta_0|_D^2`; also that of half the squared error with torch's
    `weight_decay` = gamma.
    """
    d = gamma * scales
    return torch.linalg.solve(x.mT @ x / len(x) + d.diag(), x.mT @ y / len(x) + d * theta_0)


@dataclass(frozen=True, kw_only=True)
class Equation13(Measurement):
    """Eq. (13): on a linear model syre finds ridge regression's solution, moved by `gamma (A + gamma I)^-1 theta_0`.

    Trained by torch's SGD with syre attached. Measures its relative distance from the closed form, `error`, and with D
    (sigma_d 0.1) `error/advanced`; its distance from the ridge solution, `displacement`, and this over |theta_0|,
    `relative`.
    """

    samples: int = 60
    dims: int = 10
    gamma: float = 0.1
    sigma: float = 0.1
    steps: int = 200
    ranges: ClassVar = dict.fromkeys(("samples", "dims", "gamma", "sigma", "steps"), positive)

    def measure(self, seed: int) -> dict[str, float]:
        x, theta_0 = gaussian(seed, "x", self.samples, self.dims), self.sigma * gaussian(seed, "theta_0", self.dims)
        y = x @ gaussian(seed, "w", self.dims) + gaussian(seed, "noise", self.samples) / 2
        ones, scales = torch.ones_like(theta_0), diagonal(seed, self.dims, 0.1)
        plain = ridge(x, y, self.gamma, torch.zeros_like(theta_0), ones)
        found = {}
        for d, suffix in ((scales, "/advanced"), (ones, "")):
            w, closed = self._train(x, y, theta_0, d), ridge(x, y, self.gamma, theta_0, d)
            found[f"error{suffix}"] = ((w - closed).norm() / closed.norm()).item()
        displacement = (w - plain).norm().item()
        return {**found, "displacement": displacement, "relative": displacement / theta_0.norm().item()}

    def _train(self, x: Tensor, y: Tensor, theta_0: Tensor, scales: Tensor) -> Tensor:
        model = Flat(torch.zeros_like(theta_0))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.4, weight_decay=self.gamma)
        attach_anchors(optimizer, model, {"theta": theta_0}, scales={"theta": scales})
        for _ in range(self.steps):
            optimizer.zero_grad()
            ((x @ model.theta - y).square().mean() / 2).backward()
            optimizer.step()
        return model.theta.detach()


@dataclass(frozen=True, kw_only=True)
class Escape(Measurement):
    """How long gradient descent takes to leave a symmetric saddle, against gamma sigma.

    Two equal tanh neurons at a minimum, among equal ones, of the loss with plain decay: a saddle of curvature
    `lambda < 0` along n in the range of P. With the bias, p = n^T phi is pushed by `f = 2 gamma |n^T theta_0|` and
    grows as `(f / |lambda|) ((1 + eta |lambda|)^t - 1)`, so that |P phi| passes `threshold` after about
    `log(threshold |lambda| / f) / log(1 + eta |lambda|)` steps. Measures

    - `steps` until then, `escaped`, 1, or 0 where it stays for `patience` / log(1 + eta |lambda|) steps;
    - `expected` steps (the patience without a bias), `rate`, log(1 + eta |lambda|), and `curvature`, lambda.
    """

    inputs: int = 3
    outputs: int = 2
    gamma: float = 0.01
    sigma: float = 0.01
    lr: float = 0.2
    threshold: float = 0.1
    patience: float = 50.0
    ranges: ClassVar = dict.fromkeys(("inputs", "outputs", "gamma", "lr", "threshold", "patience"), positive)
    ranges |= {"sigma": at_least}

    def measure(self, seed: int) -> dict[str, float]:
        net = teacher_student(seed, inputs=self.inputs, neurons=2, outputs=self.outputs)
        normals, phi = copies_normals(net, 2), self.saddle(seed, net)
        curvature = hessian(anchored(net.loss, self.gamma, 0.0), phi)
        curvatures, directions = torch.linalg.eigh(normals.mT @ curvature @ normals)
        saddle = curvatures[0].item() < 0
        check(saddle, f"task.gamma={self.gamma} leaves no saddle to escape from at seed {seed}: lower it")
        rate, n = log1p(-self.lr * curvatures[0].item()), normals @ directions[:, 0]
        theta_0 = self.sigma * gaussian(seed, "theta_0", net.dims)
        limit = int(self.patience / rate)
        force = 2 * self.gamma * (n @ theta_0).abs().item()
        growth = -self.threshold * curvatures[0].item() / force if force else inf
        steps = self._steps(net, normals, phi, theta_0, limit)
        return {
            "steps": steps,
            "escaped": float(steps < limit),
            "expected": log1p(growth) / rate if force else limit,
            "rate": rate,
            "curvature": curvatures[0].item(),
        }

    def saddle(self, seed: int, net: Network) -> Tensor:
        """The lowest minimum found among networks with two equal neurons."""
        twice = lambda u: torch.cat([u, u], -1)  # noqa: E731
        loss = lambda u: anchored(net.loss, self.gamma, 0.0)(twice(u))  # noqa: E731
        found = minimise(loss, gaussian(seed, "starts", 8, net.block), steps=30)
        return twice(found[vmap(loss)(found).argmin()])

    def _steps(self, net: Network, normals: Tensor, phi: Tensor, theta_0: Tensor, limit: int) -> int:
        """Steps of gradient descent until |P phi| exceeds the threshold; at most `limit`."""
        loss = anchored(net.loss, self.gamma, theta_0)
        for step in range(limit):
            if project(phi, normals).norm() > self.threshold:
                return step
            phi = phi - self.lr * gradient(loss, phi)
        return limit
