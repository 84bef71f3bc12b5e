"""Continual tasks: one data set, seen through a sequence of pixel permutations, or with a sequence of labels."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import torch

from syre.checks import among, at_least, count
from syre.data.colour import Cifar10
from syre.data.images import Dataset, Digits, Mnist, _Images, subset
from syre.seeding import generator

BASES = {"mnist": Mnist, "digits": Digits}
LABELLED = {"cifar10": Cifar10, **BASES}


@dataclass(frozen=True, kw_only=True)
class PermutedMnist(_Images):
    """MNIST and `tasks - 1` permutations of its pixels, one task after the other (section 6.6).

    Task 0 is the data set itself; each further task permutes the pixels of all images by one permutation, drawn from
    the run's seed, independently of the others. The images are the same in every task.

    Args:
        base: mnist, standardised; or digits, scikit-learn's, with nothing to fetch.
        tasks: number of tasks.
        samples, test_samples: size of the subset drawn from the run's seed; 0 means all images.
    """

    name: ClassVar[str] = "permuted_mnist"
    base: str = "mnist"
    tasks: int = 10
    samples: int = 10_000
    test_samples: int = 2_000
    ranges: ClassVar = {"base": among(*BASES), "tasks": count, "samples": at_least, "test_samples": at_least}

    def load(self, root: str | Path | None = None, seed: int = 0) -> Dataset:
        """Read from `root` as the base does; subset and permutations are of the seed. Runs of one seed share it.

        Raises:
            DataError: missing or damaged files. ValueError: more samples asked for than there are.
        """
        base = BASES[self.base]().load(root)
        return _draw(base, self.tasks, self.samples, self.test_samples, seed)


@lru_cache(maxsize=4)  # 10,000 images are 31 MB
def _draw(base: Dataset, tasks: int, samples: int, test_samples: int, seed: int) -> Dataset:
    pixels = base.train_inputs[0].numel()
    stream = generator(seed, "permutations")
    later = [torch.randperm(pixels, generator=stream) for _ in range(tasks - 1)]
    orders = torch.stack([torch.arange(pixels), *later])
    return replace(subset(base, samples, test_samples, seed), permutations=orders)


@dataclass(frozen=True, kw_only=True)
class RandomLabels(_Images):
    """The same images in `tasks` tasks, in each of which every image has a new label, uniform over the classes.

    There is nothing to learn but the labels themselves: what is measured, on the images that are trained on, is how
    well they are memorised, so the test images are the training images. Source: Random Label CIFAR of Kumar et al. 2023
    (arXiv 2308.11958, section 4.2), after Lyle et al. 2023 (arXiv 2303.01486): 1200 images, 50 tasks of 400 epochs
    each, batches of 16 under Adam, and the accuracy on the batches of training.

    Args:
        base: cifar10 or mnist, standardised; or digits, scikit-learn's, with nothing to fetch.
        tasks: number of tasks.
        samples: images, drawn from the run's seed; 0 means all.
    """

    name: ClassVar[str] = "random_labels"
    base: str = "cifar10"
    tasks: int = 10
    samples: int = 1200
    ranges: ClassVar = {"base": among(*LABELLED), "tasks": count, "samples": at_least}

    def load(self, root: str | Path | None = None, seed: int = 0) -> Dataset:
        """Read from `root` as the base does; images and labels are of the seed. Runs of one seed share them.

        Raises:
            DataError: missing or damaged files. ValueError: more samples asked for than there are.
        """
        return _relabel(LABELLED[self.base]().load(root), self.tasks, self.samples, seed)


@lru_cache(maxsize=4)
def _relabel(base: Dataset, tasks: int, samples: int, seed: int) -> Dataset:
    chosen = subset(base, samples, 0, seed)
    images, draws = chosen.train_inputs, [generator(seed, "labels", task) for task in range(tasks)]
    labels = torch.stack([torch.randint(base.num_classes, (len(images),), generator=draw) for draw in draws], 1)
    return replace(chosen, train_targets=labels, test_inputs=images, test_targets=labels, relabelled=True)
