"""Images per second of whole training steps, data and augmentation included: ours against a textbook loop.

The textbook: a DataLoader with two workers over a data set of torchvision, transforms per image, float32, the default
memory layout, torch's default optimizer, no syre. Ours: the same network, batch and augmentation as the trainer runs
them, syre attached. The workers are processes of their own, on the same cores, as users run them; in each round they
are started anew, and the batches that they have prepared in advance are used up before the time is taken.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torchvision
from hydra import compose, initialize_config_dir
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from experiments.engine.build import assemble
from experiments.engine.config import Run, identity
from experiments.engine.expand import Group
from scripts.bench_table import Effort, Row, trainer_step
from syre.data import DataError, Dataset, DataSource
from syre.data.augment import AUGMENTATIONS
from syre.data.files import data_root, torchvision_class
from syre.metrics.cost import Clock, Step, clock
from syre.trainer import has_bf16

ROOT = Path(__file__).parents[1]
WORKERS, AHEAD = 2, 2  # processes, and batches that each prepares in advance
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
SETTINGS = "compute.precision=auto regularizer=syre regularizer.weight_decay=5e-4"


@dataclass(frozen=True, kw_only=True)
class Network:
    """One network and its training, as ours by Hydra overrides (`small`: for `quick`) and as the textbook's.

    batch: on a CPU, as in figure 3b and table 1; the ViT's 512 would take minutes a round.
    """

    name: str
    batch: int
    ours: str
    small: str = "model.width=4"
    model: Callable[[], nn.Module]
    transform: Callable[[Any], Any]
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    loss: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy


# ---- the textbook ----------------------------------------------------------------------------------------------------


def resnet18() -> nn.Module:
    """torchvision's, with the stem for 32x32 images: a 3x3 convolution of stride 1 and no pooling."""
    model = torchvision.models.resnet18(num_classes=10)
    model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return model


def vit() -> nn.Module:
    return torchvision.models.VisionTransformer(32, 4, 6, 8, 512, 512, dropout=0.1, num_classes=10)


def simclr() -> nn.Module:
    model = torchvision.models.resnet18()
    model.fc = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 128))
    return model


def nt_xent(z: Tensor, _: Tensor) -> Tensor:
    """Chen et al. 2020; the views of image i are rows i and i + batch."""
    z = nn.functional.normalize(z, dim=1)
    similarity = (z @ z.T / 0.5).fill_diagonal_(-torch.inf)
    batch = len(z) // 2
    return nn.functional.cross_entropy(similarity, torch.arange(2 * batch, device=z.device).roll(batch))


TO_INPUT = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
CROP_FLIP = transforms.Compose([transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), *TO_INPUT])
JITTER = transforms.RandomApply([transforms.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.8)
CROP = [transforms.RandomResizedCrop(32), transforms.RandomHorizontalFlip()]
VIEW = transforms.Compose([*CROP, JITTER, transforms.RandomGrayscale(0.2), *TO_INPUT])


def two_views(image: Any) -> tuple[Tensor, Tensor]:
    """Each with draws of its own."""
    return VIEW(image), VIEW(image)


NETWORKS = (
    Network(
        name="ResNet18",
        batch=128,
        ours="model=resnet18 data=cifar10 data.augment=crop_flip optim=sgd optim.momentum=0.9",
        model=resnet18,
        transform=CROP_FLIP,
        optimizer=lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4),
    ),
    Network(
        name="ViT",
        batch=128,
        ours="model=vit model.dropout=0.1 data=cifar10 data.augment=crop_flip optim=adam optim.lr=1e-4",
        small="model.dim=16 model.mlp=16 model.depth=1",
        model=vit,
        transform=CROP_FLIP,
        optimizer=lambda m: torch.optim.Adam(m.parameters(), lr=1e-4, weight_decay=5e-4),
    ),
    Network(
        name="SimCLR",
        batch=256,
        ours="model=simclr data=cifar100 data.augment=simclr task=contrastive optim=adam",
        model=simclr,
        transform=two_views,
        loss=nt_xent,
        optimizer=lambda m: torch.optim.Adam(m.parameters(), lr=1e-3, weight_decay=5e-4),
    ),
)


class Pictures(torchvision.datasets.CIFAR10):
    """Images of our own in the place of CIFAR's."""

    def __init__(self, pixels: Tensor, labels: Tensor, transform: Callable[[Any], Any]) -> None:
        self.data, self.targets = pixels.permute(0, 2, 3, 1).numpy(), labels.tolist()
        self.transform, self.target_transform = transform, None


def textbook(network: Network, dataset: Any, batch: int, device: torch.device, clock: Clock) -> Callable[[int], float]:
    """A function that trains so many steps and gives the seconds per step."""
    model = network.model().to(device)
    optimizer = network.optimizer(model)

    def turn(steps: int) -> float:
        workers: dict[str, Any] = {"num_workers": WORKERS, "prefetch_factor": AHEAD}
        workers |= {"pin_memory": device.type == "cuda", "shuffle": True, "drop_last": True}
        loader = DataLoader(dataset, batch, **workers)
        before, start = WORKERS * AHEAD if steps > 1 else 0, 0.0
        for step, (inputs, labels) in enumerate(loader):
            if step == before:
                start = clock()
            inputs = torch.cat(inputs) if isinstance(inputs, list) else inputs  # views
            inputs, labels = inputs.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            optimizer.zero_grad()
            network.loss(model(inputs), labels).backward()
            optimizer.step()
            if step + 1 == before + steps:
                return (clock() - start) / steps
        raise ValueError(f"{len(dataset)} images are too few for {before + steps} batches of {batch}")

    return turn


# ---- ours ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RandomImages(DataSource):
    """Uniform pixels, where CIFAR is not there: a step takes as long."""

    augment: str
    samples: int = 8192

    def load(self, root: str | Path | None = None, seed: int = 0) -> Dataset:
        stream = torch.Generator().manual_seed(seed)
        pixels = torch.randint(256, (self.samples, 3, 32, 32), generator=stream, dtype=torch.uint8)
        labels = torch.randint(10, (self.samples,), generator=stream)
        own: dict[str, Any] = {"mean": MEAN, "std": STD, "augmentation": AUGMENTATIONS[self.augment]}
        own |= {"test_inputs": pixels[:1], "test_targets": labels[:1]}
        return Dataset(train_inputs=pixels, train_targets=labels, num_classes=10, **own)


def our_run(network: Network, batch: int, *, compiled: bool, quick: bool = False) -> Run:
    words = f"{network.ours} {network.small if quick else ''} {SETTINGS} train.batch_size={batch}".split()
    words.append(f"compute.compile={str(compiled).lower()}")
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return Run(config=identity(compose("config", words)))


def our_step(run: Run, device: torch.device) -> Step:
    return trainer_step(*assemble(Group(runs=[run]), None, device), run.task.loss)


def flops(run: Run, device: torch.device) -> int:
    """Of one step: those of its matrix products and convolutions, forward and backward."""
    step = our_step(run, device)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # it knows not all fused kernels
        step()
    return counter.get_total_flops()


def timed(step: Step, steps: int, clock: Clock) -> float:
    """Seconds per step."""
    start = clock()
    for _ in range(steps):
        step()
    return (clock() - start) / steps


def matmul_peak(device: torch.device, dtype: torch.dtype, size: int, clock: Clock) -> float:
    """FLOP/s of the product of two size x size matrices, the best of fifty."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    taken = [timed(lambda: a @ b, 1, clock) for _ in range(52)]
    return 2 * size**3 / min(taken[2:])


# ---- the table -------------------------------------------------------------------------------------------------------


def images(effort: Effort) -> Iterator[Row]:
    """One network after the other, with two threads; `quick`: a step each of batches of two random images."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    for network in NETWORKS:
        yield measured(network, quick=effort.quick)
    torch.set_num_threads(threads)


def measured(network: Network, *, quick: bool, rounds: int = 3, seconds: float = 4.0) -> Row:
    """Both ways to train a network, in turns, and our share of the device's matrix-multiply peak."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cuda, bf16, now = device.type == "cuda", has_bf16(device), clock(device)
    dtype, size = torch.bfloat16 if bf16 else torch.float32, 64 if quick else 8192 if cuda else 2048
    batch = 2 if quick else 512 if cuda else network.batch
    run = our_run(network, batch, compiled=cuda, quick=quick)
    try:
        if quick:
            raise DataError("random images do")
        run.data.load()
        dataset = torchvision_class(run.data.name)(data_root(None), train=True, transform=network.transform)
        pictures = run.data.name
    except DataError:
        random = {"_target_": f"{RandomImages.__module__}.RandomImages", "augment": run.data.augment}
        run = replace(run, config=run.config | {"data": random | {"samples": 64 if quick else 8192}})
        pixels = run.data.load(seed=run.seed)
        dataset, pictures = Pictures(pixels.train_inputs, pixels.train_targets, network.transform), "random images"
    eager = replace(run, config=run.config | {"compute": run.config["compute"] | {"compile": False}})
    work = flops(eager, device)
    peak = matmul_peak(device, dtype, size, now)  # before and after: other work on the machine comes and goes
    step, turn = our_step(run, device), textbook(network, dataset, batch, device, now)
    once = [timed(step, 1, now) for _ in range(1 if quick else 3)][-1]
    steps = 1 if quick else max(2, round(seconds / once))
    ours, theirs = [], []
    for k in range(1 if quick else rounds):
        for mine in (True, False) if k % 2 else (False, True):
            if mine:
                ours.append(timed(step, steps, now))
            else:
                theirs.append(turn(max(steps // 2, 1 if quick else 2)))
    peak = max(peak, matmul_peak(device, dtype, size, now))
    target = 5 if cuda else 1.7 if bf16 else 1.05
    speeds = " and ".join(f"{batch / median(each):.0f}" for each in (ours, theirs))
    share = f"{100 * work / median(ours) / peak:.0f} % of the peak"
    products = f"{str(dtype).removeprefix('torch.')} products at {peak / 1e12:.3g} TFLOP/s"
    note = f"{speeds} images/s; {share}; {products}; {pictures}"
    ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
    return Row(f"textbook / ours: {network.name}, batch {batch}", ratios, f">= {target:g}", note)
