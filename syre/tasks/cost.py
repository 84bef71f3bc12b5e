"""The cost of syre (B.6): time and memory of training steps with and without it; nothing is learnt."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from syre.checks import among, at_least, count
from syre.core import parametrize
from syre.metrics.cost import Step, clock, in_turns, peak_bytes
from syre.models import MLP, ResNet18, ViT
from syre.optim import SGD
from syre.precision import full_float32
from syre.regularizers import paired
from syre.trainer import Measurement

NETWORKS: dict[str, Callable[[int], Any]] = {  # of a width
    "mlp": lambda width: MLP(hidden=[width] * 3),
    "resnet18": lambda width: ResNet18(width=width),
    "vit": lambda width: ViT(dim=width, mlp=width),
}
FORMS = ("plain", "attach", "parametrize")
SHAPE, CLASSES, IMAGES = (3, 32, 32), 10, 50_000  # of CIFAR-10
DECAY = 5e-4


def with_syre(
    form: str, model: nn.Module, optimizer: Callable[[nn.Module], Optimizer], seed: int, sigma: float = 0.01
) -> tuple[nn.Module, Optimizer]:
    """A model and its optimizer in one of `FORMS`: without syre, as hooks on the optimizer, inside the module."""
    if form == "parametrize":
        model = parametrize(model, sigma=sigma, seed=seed)
    built = optimizer(model)
    if form == "attach":
        paired(built, model, sigma=sigma, seed=seed)
    return model, built


def classification_step(model: nn.Module, optimizer: Optimizer, inputs: Tensor, labels: Tensor) -> Step:
    """Forward, backward, optimizer, on one batch again and again."""

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()

    return step


@dataclass(frozen=True, kw_only=True)
class Cost(Measurement):
    """Time and peak memory of a training step without syre, with `syre.attach` and with `syre.parametrize`.

    float32, SGD with momentum and decay (the cheapest usual optimizer, so that what syre adds weighs most), one batch
    of random numbers of the size of CIFAR-10's images on the device: a step takes as long whatever the pixels are.
    A repetition (a seed) measures, for each `<form>`:

    - `MB/<form>`: peak memory in MiB from the model to the second step (`syre.metrics.cost.peak_bytes`), each form by
      itself, once a process, for it depends on no seed; `memory/<form>`: as a ratio to plain; `copies/<form>`: what it
      adds, in copies of the parameters;
    - `ms/<form>`, `epoch/<form>`: milliseconds per step and seconds per epoch of 50,000 images, the three forms timed
      in turns, the median over rounds; `time/<form>`: the median over rounds of the ratio to plain in the same round.

    Args:
        network: mlp (three hidden layers), resnet18 (stem for small images) or vit (patches of 4, six blocks).
        width: units of a hidden layer; channels of the first stage; size of a token and of a hidden layer.
        rounds, seconds: rounds, and about how long each form runs in one.
        device: auto, cpu, cuda.
    """

    network: str = "mlp"
    width: int = 300
    batch: int = 128
    rounds: int = 11
    seconds: float = 0.2
    device: str = "auto"
    ranges: ClassVar = {"network": among(*NETWORKS), "width": count, "batch": count, "rounds": count}
    ranges |= {"seconds": at_least}

    @full_float32()
    def measure(self, seed: int) -> dict[str, float]:
        device = torch.device(self.device if self.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
        memory = {form: _peak(self.network, self.width, self.batch, form, device) for form in FORMS}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            steps = {form: _step(self.network, self.width, self.batch, form, device, seed) for form in FORMS}
            taken = in_turns(steps, rounds=self.rounds, seconds=self.seconds, clock=clock(device))
            network = NETWORKS[self.network](self.width).build(SHAPE, CLASSES)
        parameters = sum(parameter.nbytes for parameter in network.parameters())
        values = {"parameters": parameters / 2**20}
        for form in FORMS:
            values[f"MB/{form}"] = memory[form] / 2**20
            values[f"ms/{form}"] = 1e3 * median(taken[form])
            values[f"epoch/{form}"] = (IMAGES // self.batch) * median(taken[form])
            if form != "plain":
                values[f"memory/{form}"] = memory[form] / memory["plain"]
                values[f"copies/{form}"] = (memory[form] - memory["plain"]) / parameters
                values[f"time/{form}"] = median(t / p for t, p in zip(taken[form], taken["plain"], strict=True))
        return values


def _step(network: str, width: int, batch: int, form: str, device: torch.device, seed: int = 0) -> Step:
    model = NETWORKS[network](width).build(SHAPE, CLASSES).to(device)
    sgd = SGD(lr=1e-3, momentum=0.9)
    pair = with_syre(form, model, lambda model: sgd.build(model, DECAY), seed)
    inputs = torch.randn(batch, *SHAPE, device=device)
    return classification_step(*pair, inputs, torch.randint(CLASSES, (batch,), device=device))


@lru_cache
def _peak(network: str, width: int, batch: int, form: str, device: torch.device) -> int:
    def train() -> None:
        step = _step(network, width, batch, form, device)
        for _ in range(2):  # the optimizer's state is there from the second one on
            step()

    with torch.random.fork_rng(devices=[]):
        return peak_bytes(train, device)
