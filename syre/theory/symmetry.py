"""What the statements are about: reflections, the two regularised losses, a small network, and a blind search.

Everything is float64. theta is what decays, `phi = theta + theta_0` what the loss sees, theta_0 the static bias of std
sigma (absolute here), gamma that of the paper: `gamma |theta|^2`, so that torch's `weight_decay` is 2 gamma.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import vmap

from syre.theory.numerics import Function, gaussian, minimise

# ---- reflections: P = N N^T, the columns of `normals` N [d, rank P] orthonormal --------------------------------------


def random_normals(seed: int, name: str, dims: int, rank: int) -> Tensor:
    return torch.linalg.qr(gaussian(seed, name, dims, rank)).Q


def project(theta: Tensor, normals: Tensor) -> Tensor:
    """P theta."""
    return theta @ normals @ normals.mT


def reflect(theta: Tensor, normals: Tensor, centre: Tensor | float = 0.0) -> Tensor:
    """`centre + (I - 2P)(theta - centre)`: Definition 1 in absolute coordinates; only P centre matters."""
    return theta - 2 * project(theta - centre, normals)


def residual(f: Function, normals: Tensor, points: Tensor, centre: Tensor | float = 0.0) -> float:
    """How far f is from having the (centre, P)-symmetry: the largest `|f(p) - f(reflection of p)|` at points [k, d]."""
    return (f(points) - f(reflect(points, normals, centre))).abs().max().item()


def search(f: Function, points: Tensor, starts: Tensor, steps: int = 40) -> tuple[float, Tensor]:
    """The reflection of rank 1, about any centre, that f comes nearest to having, sought blindly.

    Minimises the rms over `points` [k, d] of `f(p) - f(p - 2 n (n^T p - a))` over unit vectors n and numbers a, from
    every start [s, d]. Returns the rms and n [d].
    """

    def mean_square(v: Tensor) -> Tensor:
        n = v[:-1] / v[:-1].norm()
        return (f(points) - f(points - 2 * (points @ n - v[-1]).unsqueeze(-1) * n)).square().mean()

    found = minimise(mean_square, torch.cat([starts, torch.zeros_like(starts[:, :1])], 1), steps=steps)
    values = vmap(mean_square)(found)
    best = found[values.argmin(), :-1]
    return values.min().sqrt().item(), best / best.norm()


# ---- the two losses --------------------------------------------------------------------------------------------------


def anchored(loss: Function, gamma: float, theta_0: Tensor | float, scales: Tensor | float = 1.0) -> Function:
    """`phi -> loss(phi) + gamma |phi - theta_0|_D^2`: syre with the anchor in the decay (5.1, and its Eq. (7))."""
    return lambda phi: loss(phi) + gamma * (scales * (phi - theta_0).square()).sum(-1)


def biased(loss: Function, gamma: float, theta_0: Tensor | float, scales: Tensor | float = 1.0) -> Function:
    """`theta -> loss(theta + theta_0) + gamma |theta|_D^2`: Eq. (6), and Eq. (7) with the scales D, as written."""
    return lambda theta: loss(theta + theta_0) + gamma * (scales * theta.square()).sum(-1)


# ---- a network -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Network:
    """`f(x) = sum_i v_i tanh(w_i^T x)` on a teacher's data; theta [..., d] lists (w_i, v_i), neuron after neuron.

    Its reflections: the swap of two neurons, and the change of a neuron's sign, each of rank `block`, the number of
    weights of a neuron. `x` [n, inputs], `y` [n, outputs].
    """

    neurons: int
    x: Tensor
    y: Tensor

    @property
    def block(self) -> int:
        return self.x.shape[1] + self.y.shape[1]

    @property
    def dims(self) -> int:
        return self.neurons * self.block

    def outputs(self, theta: Tensor, x: Tensor | None = None) -> Tensor:
        """[..., d] -> [..., n, outputs]."""
        w, v = theta.unflatten(-1, (self.neurons, self.block)).split([self.x.shape[1], self.y.shape[1]], -1)
        return torch.tanh((self.x if x is None else x) @ w.mT) @ v

    def loss(self, theta: Tensor) -> Tensor:
        """Half the squared error, mean over the samples: [..., d] -> [...]."""
        return (self.outputs(theta) - self.y).square().sum(-1).mean(-1) / 2

    def swap(self, i: int, j: int) -> Tensor:
        """Normals [d, block] of the swap of two neurons: `P = (e_i - e_j)(e_i - e_j)^T / 2 (x) I`."""
        e = torch.eye(self.neurons, dtype=torch.float64)
        return torch.kron((e[i] - e[j]).unsqueeze(1) / 2**0.5, torch.eye(self.block, dtype=torch.float64))

    def flip(self, i: int) -> Tensor:
        """Normals [d, block] of the change of a neuron's sign."""
        return torch.eye(self.dims, dtype=torch.float64).unflatten(1, (self.neurons, self.block))[:, i]


def teacher_student(
    seed: int, *, inputs: int, neurons: int, outputs: int, samples: int = 64, teacher: int = 4
) -> Network:
    """A network of `neurons` neurons on Gaussian inputs and the outputs of another with `teacher` neurons."""
    x = gaussian(seed, "x", samples, inputs)
    other = Network(neurons=teacher, x=x, y=torch.zeros(samples, outputs, dtype=torch.float64))
    y = other.outputs(gaussian(seed, "teacher", other.dims))
    return Network(neurons=neurons, x=x, y=y)
