"""Image classification data sets: frozen leaf configs whose `load` gives tensors, shared by all runs of a process."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from syre.checks import Settings, check, positive
from syre.data.augment import Augmentation
from syre.data.files import bundled, data_root, splits
from syre.seeding import generator

Split = tuple[Tensor, Tensor]  # inputs and targets


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """The tensors of one data set; cached and shared between runs, so never write to them.

    Inputs are float32 [n, channels, height, width], targets int64 [n] in 0..num_classes-1; or both are the tokens of a
    text, [n, context], in 0..num_classes-1. Inputs may also be uint8
    pixels: `syre.batches.Batches` then turns a batch at a time, on its device, into pixels in [0, 1], augments it, and
    standardises it with `mean` and `std`, one number per channel.

    A data set may be a sequence of tasks over the same samples: it then has `permutations` or `alphabets`, or is
    `relabelled`, and `syre.batches.Batches` gives each task its own. (With several, there are as many of each.)
    """

    train_inputs: Tensor
    train_targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor
    num_classes: int
    permutations: Tensor | None = None  # int64 [stages, features]: continual tasks that permute the inputs
    relabelled: bool = False  # continual tasks with labels of their own: the targets are [n, stages]
    alphabets: Tensor | None = None  # int64 [stages, classes]: ... that rename the tokens, of inputs and targets
    mean: tuple[float, ...] = (0.0,)  # of uint8 inputs, per channel (or one for all), in [0, 1]
    std: tuple[float, ...] = (1.0,)
    augmentation: Augmentation | None = None  # of uint8 training inputs

    @classmethod
    def of(cls, train: Split, test: Split, num_classes: int) -> "Dataset":
        """From the inputs and targets of the two splits."""
        (x, y), (unseen, labels) = train, test
        return cls(train_inputs=x, train_targets=y, test_inputs=unseen, test_targets=labels, num_classes=num_classes)

    @property
    def stages(self) -> int:
        """Number of tasks that are trained one after the other."""
        if self.relabelled:
            return self.train_targets.shape[1]
        return max((len(stages) for stages in (self.permutations, self.alphabets) if stages is not None), default=1)

    @property
    def views(self) -> int:
        """Views of each image in a batch of training."""
        return 1 if self.augmentation is None else self.augmentation.views

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.train_inputs.shape[1:])


class DataSource(Settings, ABC):
    """What gives a data set: a frozen dataclass, the leaf of a config.

    Attributes:
        input_scale: the factor alpha on every input: 1, unless it can be set (see `_Images`).
    """

    prefix = "data"
    input_scale: float = 1.0

    @abstractmethod
    def load(self, root: str | Path | None = None, seed: int = 0) -> Dataset:
        """The data set of a seed, its files, if there are any, below `root`; runs of one seed share their tensors.

        Raises:
            DataError: missing or damaged files. ValueError: settings that do not fit the data.
        """


@dataclass(frozen=True, kw_only=True)
class _Images(DataSource):
    """What all image data sets share.

    input_scale: the factor alpha on every input (arXiv 2408.15495v3, section 6.3). The trainer applies it, per
        replica; `load` does not, so that replicas with different alpha share one tensor.
    """

    input_scale: float = 1.0
    ranges: ClassVar = {"input_scale": positive}


@dataclass(frozen=True, kw_only=True)
class _Torchvision(_Images):
    """A data set of torchvision: pixels in [0, 1], then, if `normalize`, (pixel - mean) / std per channel.

    mean, std: over the training pixels, as widely published, to four digits.
    """

    name: ClassVar[str]
    mean: ClassVar[tuple[float, ...]]
    std: ClassVar[tuple[float, ...]]
    normalize: bool = True

    def standard(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The mean and std by which pixels are standardised."""
        return (self.mean, self.std) if self.normalize else ((0.0,), (1.0,))

    def load(self, root: str | Path | None = None, seed: int = 0) -> Dataset:
        """Read from `root`, else $SYRE_DATA, else ~/.cache/syre; nothing is fetched.

        The published split, whatever the seed.

        Raises:
            DataError: missing or damaged files.
        """
        return _read(self.name, *self.standard(), data_root(root))


@dataclass(frozen=True, kw_only=True)
class Mnist(_Torchvision):
    """60,000 + 10,000 handwritten digits, [1, 28, 28], 10 classes."""

    name = "mnist"
    mean, std = (0.1307,), (0.3081,)


@dataclass(frozen=True, kw_only=True)
class FashionMnist(_Torchvision):
    """60,000 + 10,000 articles of clothing, [1, 28, 28], 10 classes."""

    name = "fashion_mnist"
    mean, std = (0.2860,), (0.3530,)


@dataclass(frozen=True, kw_only=True)
class Digits(_Images):
    """1797 handwritten digits of scikit-learn, [1, 8, 8], pixels in [0, 1], 10 classes; nothing to fetch.

    Split: of each class, every fifth image in scikit-learn's order is a test image (1442 + 355).
    """

    name: ClassVar[str] = "digits"

    def load(self, root: str | Path | None = None, seed: int = 0) -> Dataset:
        """Read from scikit-learn, whatever the root and seed."""
        return _read_digits()


@lru_cache(maxsize=4)
def _read(name: str, mean: tuple[float, ...], std: tuple[float, ...], root: Path) -> Dataset:
    whole = splits(name, root)
    shift, scale = (torch.tensor(per_channel).view(-1, 1, 1) for per_channel in (mean, std))
    train, test = ((_pixels(one.data).sub_(shift).div_(scale), torch.as_tensor(one.targets)) for one in whole)
    return Dataset.of(train, test, num_classes=len(whole[0].classes))


def _pixels(images: Tensor) -> Tensor:
    """uint8 [n, h, w] -> float32 [n, 1, h, w] in [0, 1]."""
    return images.unsqueeze(1).to(torch.float32).div_(255)


@lru_cache(maxsize=1)
def _read_digits() -> Dataset:
    table = torch.from_numpy(bundled("digits.csv.gz", delimiter=","))
    inputs, targets = table[:, :-1].float().view(-1, 1, 8, 8) / 16, table[:, -1].long()
    same_before = torch.nn.functional.one_hot(targets).cumsum(0).gather(1, targets[:, None]).squeeze(1)
    test = same_before % 5 == 0
    return Dataset.of((inputs[~test], targets[~test]), (inputs[test], targets[test]), num_classes=10)


def subset(whole: Dataset, samples: int, test_samples: int, seed: int) -> Dataset:
    """So many distinct training and test images, drawn from the seed; 0 means all.

    Raises:
        ValueError: more than there are.
    """
    sizes = {"samples": (samples, len(whole.train_inputs)), "test_samples": (test_samples, len(whole.test_inputs))}
    for name, (size, available) in sizes.items():
        check(size <= available, f"data.{name} must be at most {available}, the images there are, got {size}")
    train, test = (
        torch.randperm(available, generator=generator(seed, purpose))[:size] if size else slice(None)
        for purpose, (size, available) in zip(("train_subset", "test_subset"), sizes.values(), strict=True)
    )
    data = {name: getattr(whole, name)[train] for name in ("train_inputs", "train_targets")}
    data |= {name: getattr(whole, name)[test] for name in ("test_inputs", "test_targets")}
    return replace(whole, **data)
