"""Sections 2 and 4: what a reflection symmetry is, and what it costs a model that starts on it."""

from dataclasses import dataclass
from math import ceil, log2
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import jacrev

from syre.checks import check, positive
from syre.core import attach_anchors, philox
from syre.theory.numerics import Function, gaussian
from syre.theory.symmetry import Network, anchored, project, random_normals, reflect, residual, teacher_student
from syre.trainer import Measurement


def symmetric_function(seed: int, normals: Tensor, centre: Tensor) -> Function:
    """A generic function with the (P centre, P)-symmetry: the even part, along P, of a random network."""
    weights, slopes = gaussian(seed, "even/in", len(normals), 8), gaussian(seed, "even/out", 8)
    generic = lambda theta: torch.tanh(theta @ weights + 1) @ slopes  # noqa: E731
    return lambda theta: generic(theta - centre) + generic(reflect(theta - centre, normals))


@dataclass(frozen=True, kw_only=True)
class Proposition1(Measurement):
    """Proposition 1: a translation moves a symmetry, and removes none.

    A random function f with the (theta', P)-symmetry, P theta' = theta', and its translation `g = f(. + delta)`.
    Measures the largest `|f(p) - f(reflection of p)|` over random points:

    - `part1`: of f about another theta with P theta = theta'; `question`: a reviewer's example, centre (0, 1) with
      P = diag(1, 0), whose centre in the sense of Definition 1 is 0;
    - `part2`: of g about `theta' - P delta`; control, `old_centre`: of g about theta';
    - `decayed`: of g plus gamma |theta|^2 about the new centre, over what it should be, `max |4 gamma c^T P p|`.
    """

    dims: int = 8
    rank: int = 3
    gamma: float = 0.1
    ranges: ClassVar = {"gamma": positive}

    def __post_init__(self) -> None:
        super().__post_init__()
        check(0 < self.rank < self.dims, f"task.rank must be in (0, task.dims), got {self.rank}")

    def measure(self, seed: int) -> dict[str, float]:
        normals = random_normals(seed, "normals", self.dims, self.rank)
        other, delta = (gaussian(seed, name, self.dims) for name in ("centre", "delta"))
        points = gaussian(seed, "points", 256, self.dims)
        centre = project(other, normals)
        f = symmetric_function(seed, normals, centre)
        translated = lambda theta: f(theta + delta)  # noqa: E731
        new = centre - project(delta, normals)
        broken = residual(anchored(translated, self.gamma, 0.0), normals, points + new, new)
        plane, point = torch.eye(2, dtype=torch.float64)[:, :1], torch.tensor([0.0, 1.0], dtype=torch.float64)
        example = symmetric_function(seed, plane, point)
        return {
            "part1": residual(f, normals, points, centre + other - project(other, normals)),
            "question": residual(example, plane, gaussian(seed, "plane", 256, 2), torch.zeros_like(point)),
            "part2": residual(translated, normals, points, new),
            "old_centre": residual(translated, normals, points, centre),
            "decayed": broken / (4 * self.gamma * (project(points, normals) @ new).abs().max().item()),
        }


def copies_normals(net: Network, copies: int) -> Tensor:
    """Normals [d, (copies - 1) block] of the directions in which the first `copies` neurons differ."""
    basis = torch.linalg.svd(torch.ones(1, copies, dtype=torch.float64)).Vh[1:].mT
    basis = torch.cat([basis, torch.zeros(net.neurons - copies, copies - 1, dtype=torch.float64)])
    return torch.kron(basis, torch.eye(net.block, dtype=torch.float64))


def with_copies(net: Network, theta: Tensor, copies: int) -> Tensor:
    """theta with its first `copies` neurons equal."""
    neurons = theta.clone().unflatten(-1, (net.neurons, net.block))
    neurons[..., :copies, :] = neurons[..., :1, :]
    return neurons.flatten(-2)


@dataclass(frozen=True, kw_only=True)
class _Copies(Measurement):
    inputs: int = 3
    neurons: int = 4
    outputs: int = 2
    copies: int = 3
    ranges: ClassVar = {"inputs": positive, "outputs": positive}

    def __post_init__(self) -> None:
        super().__post_init__()
        check(2 <= self.copies <= self.neurons, f"task.copies must be in [2, task.neurons], got {self.copies}")

    def start(self, seed: int) -> tuple[Network, Tensor, Tensor, Tensor]:
        """The network, the normals of P, a start on `P theta = 0` and a generic one."""
        net = teacher_student(seed, inputs=self.inputs, neurons=self.neurons, outputs=self.outputs)
        theta = gaussian(seed, "start", net.dims)
        return net, copies_normals(net, self.copies), with_copies(net, theta, self.copies), theta


def gradient_descent(a: Tensor, b: Tensor) -> Tensor:
    """`u <- u - eta (A u - b)` from u = 0 until it has converged, eta = 1 / lambda_max.

    Each step is affine, and so 2^k steps are k compositions; k is such that the slowest mode falls below rounding.
    """
    values = torch.linalg.eigvalsh(a)
    slowest = values[values > 1e-10 * values[-1]][0] / values[-1]
    linear, constant = torch.eye(len(a), dtype=a.dtype) - a / values[-1], b / values[-1]
    for _ in range(ceil(log2(40 / slowest))):
        linear, constant = linear @ linear, linear @ constant + constant
    return constant


@dataclass(frozen=True, kw_only=True)
class Proposition2(_Copies):
    """Proposition 2: on a symmetric point the linearised model sees the features `(I - P) grad f` only.

    A tanh network whose first `copies` neurons are equal; P is the projection on their differences. Measures

    - `masked`: `|P grad f| / |grad f|` there (Eq. 4), and `masked/generic`, at a generic point;
    - `rank` of the Jacobian over the data, `bound`, d - rank P, and `rank/generic`;
    - `solution`: relative distance between the limit of gradient descent on the linearised squared loss and Eq. (3),
      `theta_0 + [sum (I-P) grad f grad f^T (I-P)]^+ sum (I-P) grad f (y - f)`;
    - `moved`: `|P (theta - theta_0)| / |theta - theta_0|` of that limit, and `moved/generic`.
    """

    def measure(self, seed: int) -> dict[str, float]:
        net, normals, symmetric, generic = self.start(seed)
        found: dict[str, float] = {"bound": net.dims - normals.shape[1]}
        for theta, suffix in ((symmetric, ""), (generic, "/generic")):
            jacobian = jacrev(net.outputs)(theta).flatten(0, 1)  # [n outputs, d]
            misfit = (net.y - net.outputs(theta)).flatten()
            moved = gradient_descent(jacobian.mT @ jacobian, jacobian.mT @ misfit)
            found[f"masked{suffix}"] = (project(jacobian, normals).norm() / jacobian.norm()).item()
            found[f"rank{suffix}"] = torch.linalg.matrix_rank(jacobian, rtol=1e-10).item()
            found[f"moved{suffix}"] = (project(moved, normals).norm() / moved.norm()).item()
            if not suffix:
                features = jacobian - project(jacobian, normals)  # A^+ b = features^+ (y - f)
                closed = torch.linalg.pinv(features, rtol=1e-10) @ misfit
                found["solution"] = ((moved - closed).norm() / closed.norm()).item()
        return found


class Flat(nn.Module):
    """A module with one parameter, for the stock optimizers and for syre."""

    def __init__(self, theta: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(theta.clone())


OPTIMIZERS = {"sgd": (torch.optim.SGD, 0.1), "adam": (torch.optim.Adam, 0.01)}


@dataclass(frozen=True, kw_only=True)
class Proposition3(_Copies):
    """Proposition 3: a model that starts on a symmetric point trains as one with `d - rank P` parameters.

    The network of Proposition 2 under minibatch SGD and Adam with weight decay (torch's, 2 gamma). Adam is not in the
    paper: it commutes with permutations, though not with rotations. Measures after `steps` steps

    - `spread/<optimizer>`: the largest difference between copies, and `spread/<optimizer>/syre`, with syre from the
      same start;
    - `reduced`: the largest difference between its outputs under SGD and those of `f(B u)`, trained by SGD on u, the
      columns of B a basis of P theta = 0; `parameters`, the size of u, and `bound`, d - rank P.
    """

    gamma: float = 1e-3
    sigma: float = 0.1
    steps: int = 300
    batch: int = 16
    ranges: ClassVar = dict.fromkeys(("gamma", "sigma", "steps", "batch"), positive)

    def measure(self, seed: int) -> dict[str, float]:
        net, normals, start, _ = self.start(seed)
        found = {}
        for name in OPTIMIZERS:
            plain, syre = (self.train(net, seed, start, name, sigma=sigma) for sigma in (0.0, self.sigma))
            for theta, suffix in ((plain, ""), (syre, "/syre")):
                first = theta.unflatten(-1, (net.neurons, net.block))[: self.copies]
                found[f"spread/{name}{suffix}"] = (first - first[0]).abs().max().item()
            if name == "sgd":
                trained = plain
        basis = torch.linalg.svd(normals).U[:, normals.shape[1] :]
        reduced = self.train(net, seed, start, "sgd", basis=basis)
        gap = (net.outputs(trained) - net.outputs(reduced)).abs().max().item()
        return {**found, "reduced": gap, "parameters": basis.shape[1], "bound": net.dims - normals.shape[1]}

    def train(
        self, net: Network, seed: int, start: Tensor, name: str, *, sigma: float = 0.0, basis: Tensor | None = None
    ) -> Tensor:
        """theta after all steps, from theta = start; with a basis [d, k] it is `basis @ u`, and u is trained."""
        model = Flat(start if basis is None else start @ basis)
        cls, lr = OPTIMIZERS[name]
        optimizer = cls(model.parameters(), lr=lr, weight_decay=2 * self.gamma)
        if sigma:
            attach_anchors(optimizer, model, {"theta": sigma * gaussian(seed, "theta_0", net.dims)})
        rows = torch.from_numpy(philox(seed, "theory", "batches").integers(len(net.x), size=(self.steps, self.batch)))
        for k in rows:
            optimizer.zero_grad()
            theta = model.theta if basis is None else basis @ model.theta
            ((net.outputs(theta, net.x[k]) - net.y[k]).square().sum(-1).mean() / 2).backward()
            optimizer.step()
        return model.theta.detach() if basis is None else basis @ model.theta.detach()
