"""Colour images, kept as uint8 pixels: a quarter of float32, and augmented a batch at a time on the device."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from syre.checks import among, at_least
from syre.data.augment import AUGMENTATIONS
from syre.data.files import data_root, splits
from syre.data.images import Dataset, Digits, _Torchvision, subset


@dataclass(frozen=True, kw_only=True)
class _Colour(_Torchvision):
    """What colour images share; `load` gives uint8 [n, 3, 32, 32].

    Args:
        samples, test_samples: size of the subset drawn from the run's seed; 0 means all images.
        augment: what every training image goes through, each with its own draw: none, crop_flip, randaugment, simclr.
    """

    samples: int = 0
    test_samples: int = 0
    augment: str = "none"
    ranges: ClassVar = {"samples": at_least, "test_samples": at_least, "augment": among(*AUGMENTATIONS)}

    def load(self, root: str | Path | None = None, seed: int = 0) -> Dataset:
        """Read from `root`, else $SYRE_DATA, else ~/.cache/syre; nothing is fetched. Runs of one seed share tensors.

        Raises:
            DataError: missing or damaged files. ValueError: more samples asked for than there are.
        """
        return _subset(_read(self.name, data_root(root)), replace(self, input_scale=1.0), seed)


@dataclass(frozen=True, kw_only=True)
class Cifar10(_Colour):
    """50,000 + 10,000 colour images, [3, 32, 32], 10 classes."""

    name = "cifar10"
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


@dataclass(frozen=True, kw_only=True)
class Cifar100(_Colour):
    """50,000 + 10,000 colour images, [3, 32, 32], 100 classes."""

    name = "cifar100"
    mean, std = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)


@dataclass(frozen=True, kw_only=True)
class RgbDigits(_Colour):
    """The 1442 + 355 digits of scikit-learn, enlarged to [3, 32, 32], 10 classes; nothing to fetch.

    No colour data set: it takes the place of CIFAR where a run has only to show that everything runs.
    """

    name = "rgb_digits"
    mean, std = (0.3051,), (0.3238,)

    def load(self, root: str | Path | None = None, seed: int = 0) -> Dataset:
        return _subset(_enlarged_digits(), replace(self, input_scale=1.0), seed)


@lru_cache(maxsize=2)
def _read(name: str, root: Path) -> Dataset:
    whole = splits(name, root)
    train, test = ((_channels_first(one.data), torch.as_tensor(one.targets)) for one in whole)
    return Dataset.of(train, test, num_classes=len(whole[0].classes))


def _channels_first(images: Any) -> Tensor:
    """uint8 [n, h, w, c] -> [n, c, h, w]."""
    return torch.as_tensor(images).permute(0, 3, 1, 2).contiguous()


@lru_cache(maxsize=1)
def _enlarged_digits() -> Dataset:
    digits = Digits().load()
    large = lambda x: (interpolate(x, size=(32, 32), mode="bilinear") * 255).round().byte().expand(-1, 3, -1, -1)  # noqa: E731
    train, test = (large(inputs).contiguous() for inputs in (digits.train_inputs, digits.test_inputs))
    return replace(digits, train_inputs=train, test_inputs=test)


@lru_cache(maxsize=8)  # all of CIFAR is 0.2 GB
def _subset(whole: Dataset, config: _Colour, seed: int) -> Dataset:
    chosen, (mean, std) = subset(whole, config.samples, config.test_samples, seed), config.standard()
    return replace(chosen, mean=mean, std=std, augmentation=AUGMENTATIONS[config.augment])
