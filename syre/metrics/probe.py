"""What a linear classifier can read off a representation."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

CONSTANT = 1e-6  # std, relative to the root mean square, below which a unit is constant but for rounding


def linear_probe(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, *, decay: float = 1e-3, steps: int = 500
) -> Tensor:
    """Test accuracy in [0, 1] of logistic regression on frozen features, each unit standardised by its training values.

    Any leading dimensions, each with a classifier of its own; units that do not vary are left out; NaN where a feature
    is not finite.

    Args:
        train, test: [..., n, d] and [..., m, d]. train_labels, test_labels: int64 [..., n] and [..., m].
        decay, steps: as in `logistic_regression`.
    """
    train, test = train.detach(), test.detach()
    if train.dim() > 2:
        rows = zip(train, train_labels, test, test_labels, strict=True)
        return torch.stack([linear_probe(*row, decay=decay, steps=steps) for row in rows])
    if not (train.isfinite().all() and test.isfinite().all()):
        return train.new_full((), math.nan, dtype=torch.float64)
    mean, std, size = train.mean(0), train.std(0, correction=0), train.square().mean(0).sqrt()
    scale = std.where(std > CONSTANT * size, math.inf)
    weight, bias = logistic_regression((train - mean) / scale, train_labels, decay=decay, steps=steps)
    predicted = ((test - mean) / scale @ weight.mT + bias).argmax(-1)
    return (predicted == test_labels).double().mean()


def logistic_regression(x: Tensor, labels: Tensor, *, decay: float, steps: int = 500) -> tuple[Tensor, Tensor]:
    """The weight [classes, d] and bias [classes] of `min (1/n) sum_i CE(W x_i + b, y_i) + decay / 2 |W|^2`.

    Full-batch L-BFGS from 0, on the device and in the precision of x [n, d]. scikit-learn's LogisticRegression at
    C = 1 / (n decay) has the same minimum, which is unique up to a constant in b for decay > 0.

    Args:
        labels: int64 [n], in 0 ... classes - 1, the largest of which is among them.
        steps: at most so many iterations; fewer where the gradient's largest entry falls below 1e-6.
    """
    x, classes = x.detach(), int(labels.max()) + 1
    weight = x.new_zeros(classes, x.shape[-1], requires_grad=True)
    bias = x.new_zeros(classes, requires_grad=True)
    stop: dict[str, Any] = {"max_iter": steps, "tolerance_grad": 1e-6, "tolerance_change": 1e-12}
    optimizer = torch.optim.LBFGS([weight, bias], history_size=10, line_search_fn="strong_wolfe", **stop)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(x @ weight.mT + bias, labels) + decay / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return weight.detach(), bias.detach()
