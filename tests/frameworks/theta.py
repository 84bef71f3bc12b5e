"""The reference of these tests: the same optimizer on theta, by hand, with gradients taken at theta + b.

Also the model and the data that the frameworks train: in float64, so that what is equal is equal to many digits.
"""

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset

from syre.core import draw_anchors

SETTINGS = {"sigma": 0.5, "seed": 3}
EPOCHS, MICROBATCHES, ROWS = 2, 6, 4  # a checkpoint lies between the epochs
CLIP = 0.3
MODES = {
    "plain": {},
    "accumulated": {"accumulate": 2},
    "clipped": {"clip": CLIP},
    "both": {"accumulate": 3, "clip": CLIP},
}


class Net(nn.Module):
    """Two layers that return their loss, as the HF Trainer wants it; init differs from seed to seed."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.layers(x)
        return {"loss": (logits - labels).square().mean(), "logits": logits}


class Data(Dataset):
    """The rows of every micro-batch of an epoch; the batches differ much, so that their order shows."""

    def __init__(self) -> None:
        count = MICROBATCHES * ROWS
        x = torch.linspace(-2, 2, count * 5, dtype=torch.float64).reshape(count, 5)
        self.x, self.labels = x, (3 * x[:, :3]).sin() * x[:, 1:2].exp()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.x[index], "labels": self.labels[index]}


def loader() -> DataLoader:
    return DataLoader(Data(), batch_size=ROWS)


def sgd(parameters: Iterable) -> Optimizer:
    """Coupled decay, of all parameters."""
    return torch.optim.SGD(parameters, lr=0.05, weight_decay=0.2, momentum=0.9)


def adamw(parameters: Iterable) -> Optimizer:
    """Decoupled decay, of all parameters."""
    return torch.optim.AdamW(parameters, lr=0.02, weight_decay=0.5)


optimizers = pytest.mark.parametrize("make", [sgd, adamw])


def weights(model: nn.Module) -> dict[str, Tensor]:
    """What the forward pass sees, now."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def loss_of(model: nn.Module, batch: dict[str, Tensor], w: dict[str, Tensor]) -> Tensor:
    return functional_call(model, w, (), batch)["loss"]


def train_theta(
    model: nn.Module,
    make: Callable[[dict[str, nn.Parameter]], Optimizer],
    *,
    accumulate: int = 1,
    clip: Callable[[Iterable[Tensor]], object] | float | None = None,
    epochs: int = EPOCHS,
    shifts: int = 1,
    sigma: float = SETTINGS["sigma"],
    after: Callable[[Optimizer], Optimizer] = lambda optimizer: optimizer,
    batches: Iterable[dict[str, Tensor]] | None = None,
    loss: Callable[[nn.Module, dict[str, Tensor], dict[str, Tensor]], Tensor] = loss_of,
) -> dict[str, Tensor]:
    """The weights after training; `model` is as it was before.

    Args:
        make: named parameters -> the optimizer. What it decays has an anchor.
        clip: a norm, or what clips the gradients.
        shifts: how often the start moves by b: 1; anything else is a control.
        sigma: of the anchors; 0 is training without syre, another control.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    theta = {name: nn.Parameter(p.detach().clone()) for name, p in named.items()}
    optimizer = make(theta)
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] > 0 for p in group["params"]}
    names = [name for name, p in theta.items() if id(p) in decayed]
    b = draw_anchors(model, sigma=sigma, seed=SETTINGS["seed"], parameters=names)
    with torch.no_grad():
        for name in names:
            theta[name].add_((shifts - 1) * b[name])
    optimizer = after(optimizer)

    def w() -> dict[str, Tensor]:
        return {name: t + b[name] if name in b else t for name, t in theta.items()}

    for _ in range(epochs):
        for index, batch in enumerate(loader() if batches is None else batches):
            (loss(model, batch, w()) / accumulate).backward()
            if (index + 1) % accumulate:
                continue
            if callable(clip):
                clip(theta.values())
            elif clip:
                nn.utils.clip_grad_norm_(theta.values(), clip)
            optimizer.step()
            optimizer.zero_grad()
    return {name: t.detach() for name, t in w().items()}


def of(make: Callable[[Iterable], Optimizer]) -> Callable[[dict[str, nn.Parameter]], Optimizer]:
    """An optimizer over parameters, for `train_theta`, which has them named."""
    return lambda named: make(named.values())


def same(mine: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-10) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(mine[name], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


def differs(mine: dict[str, Tensor], other: dict[str, Tensor], by: float = 1e-3) -> None:
    """A control: somewhere they are clearly apart."""
    assert max((mine[name] - other[name]).abs().max().item() for name in mine) > by
