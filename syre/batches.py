"""Data as the trainer takes it: one batch per step for each of R replicas, on one device."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import prod

import torch
from torch import Tensor

from syre.checks import check
from syre.data import Dataset
from syre.data.augment import AUGMENTATIONS, Augmentation, Draws
from syre.seeding import generator

EVALUATION_SAMPLES = 1 << 16  # replicas x samples, or tokens, in one forward pass of an evaluation
EVALUATION_IMAGES = 1 << 9  # the same of images, whose activations are many times larger


class Batches:
    """Batches of R replicas: inputs [R, batch, ...] times each replica's own input scale, targets [R, batch].

    Epoch e of a run visits its training set in an order drawn from (seed, e) alone, so a run may resume at any step,
    and runs of the same seed see the same batches whatever their regularizer. The last, partial batch of an epoch is
    left out. A `batch_size` that reaches the size of the training set, or 0, means the full batch.

    Replicas whose data sets are one object share it in memory.

    uint8 inputs stay uint8 on the device; a batch of them is brought to [0, 1], augmented, each image by its own draw
    from (seed, step), and standardised. An augmentation with several views gives inputs [R, views * batch, ...], first
    the first views of all images.

    Of several processes that train one run, each takes its `rank`'s share of every batch, its images and their draws:
    the shares of all `world` ranks are the batch of a single process.

    A data set with permutations is a sequence of tasks, each the same samples with the features permuted; one that is
    relabelled has in each task other labels for them, and one with alphabets is the same text with its tokens renamed.
    `stage`, which the trainer sets, says of which task the batches are, those of an evaluation too.
    """

    def __init__(
        self,
        datasets: Sequence[Dataset],
        *,
        scales: Sequence[float],
        seeds: Sequence[int],
        batch_size: int,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.size, self.seeds, self.device = len(datasets), list(seeds), torch.device(device)
        self.shared = all(dataset is datasets[0] for dataset in datasets)
        check(
            len({(d.train_inputs.shape, d.test_inputs.shape) for d in datasets}) == 1,
            "replicas of one ensemble must have data sets of the same shape",
        )
        check(len({dataset.stages for dataset in datasets}) == 1, "replicas must have the same number of tasks")
        self.stage, self.stages = 0, datasets[0].stages
        self._permutations = [d.permutations.to(self.device) for d in datasets if d.permutations is not None]
        check(len(self._permutations) in (0, self.size), "either all replicas have permutations or none")
        self._relabelled = datasets[0].relabelled
        alike = all(dataset.relabelled == self._relabelled for dataset in datasets)
        check(alike, "either all replicas have new labels in each task or none")
        self._alphabets = [d.alphabets.to(self.device) for d in datasets if d.alphabets is not None]
        check(len(self._alphabets) in (0, self.size), "either all replicas have alphabets or none")
        self._splits = {split: self._tensors(datasets, split) for split in ("train", "test")}
        n = datasets[0].train_inputs.shape[0]
        self.full = batch_size == 0 or batch_size >= n
        self.batch_size = n if self.full else batch_size
        self.steps_per_epoch = n // self.batch_size
        wrong = f"train.batch_size must be a multiple of the {world} processes, got {self.batch_size}"
        check(self.batch_size % world == 0, wrong)
        self._share = slice(rank * self.batch_size // world, (rank + 1) * self.batch_size // world)
        self._pixels = _Pixels.of(datasets, self.device)
        self._samples = n
        self._scale = torch.tensor(scales, device=self.device) if any(scale != 1 for scale in scales) else None
        self._order = lru_cache(maxsize=1)(self._draw_order)
        self._rows = torch.arange(self.size, device=self.device).unsqueeze(1)

    def _tensors(self, datasets: Sequence[Dataset], split: str) -> tuple[Tensor, Tensor]:
        """Inputs and targets of a split, those of all tasks: [n, ...] if shared, else [R, n, ...]."""
        pairs = [(getattr(d, f"{split}_inputs"), getattr(d, f"{split}_targets")) for d in datasets]
        if self.shared:
            return pairs[0][0].to(self.device), pairs[0][1].to(self.device)
        inputs, targets = zip(*pairs, strict=True)
        return torch.stack(inputs).to(self.device), torch.stack(targets).to(self.device)

    def _draw_order(self, epoch: int) -> Tensor:
        """[R, n]: each replica's order of its training samples in this epoch."""
        orders = {seed: torch.randperm(self._samples, generator=generator(seed, "order", epoch)) for seed in self.seeds}
        return torch.stack([orders[seed] for seed in self.seeds]).to(self.device, non_blocking=True)

    def _presented(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """A batch as this stage has it, [R, batch, ...] and [R, batch]; the inputs at each replica's scale."""
        if self._permutations:
            flat = zip(inputs.flatten(2), self._permutations, strict=True)
            inputs = torch.stack([x[:, orders[self.stage]] for x, orders in flat]).view(inputs.shape)
        if self._relabelled:
            targets = targets[..., self.stage]
        if self._scale is not None:
            inputs = inputs * self._scale.to(inputs.dtype).view(-1, *(1,) * (inputs.dim() - 1))
        return self._renamed(inputs, targets)

    def _renamed(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens by the names that they have at this stage."""
        if not self._alphabets:
            return inputs, targets
        names = [alphabet[self.stage] for alphabet in self._alphabets]
        renamed = [torch.stack([own[row] for own, row in zip(names, rows, strict=True)]) for rows in (inputs, targets)]
        return renamed[0], renamed[1]

    def train(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of this step (from 0): inputs [R, batch, ...], targets [R, batch]."""
        if self.full:
            inputs, targets = self._slice("train", self._share)
        else:
            epoch, position = divmod(step, self.steps_per_epoch)
            start = position * self.batch_size
            chosen = self._order(epoch)[:, start : start + self.batch_size][:, self._share]
            of = chosen if self.shared else (self._rows, chosen)
            inputs, targets = (tensor[of] for tensor in self._splits["train"])
        if self._pixels:
            draws = {seed: self._draws(self.batch_size, seed, step) for seed in self.seeds}
            own = [{name: draw[self._share] for name, draw in draws[seed].items()} for seed in self.seeds]
            inputs = self._pixels.prepared(inputs, own)
        return self._presented(inputs, targets)

    def evaluation(self, split: str = "test", augmented: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """A whole split, in order, in chunks [R, chunk, ...]; `augmented` with draws that are the same for all runs."""
        samples = self._splits[split][0].shape[0 if self.shared else 1]
        each = self.size * prod(self._splits[split][1].shape[1 if self.shared else 2 :])  # targets, so tokens, a sample
        chunk = max(1, (EVALUATION_IMAGES if self._pixels else EVALUATION_SAMPLES) // each)
        for start in range(0, samples, chunk):
            inputs, targets = self._slice(split, slice(start, start + chunk))
            if self._pixels:
                draws = self._draws(targets.shape[1], 0, start) if augmented else None
                inputs = self._pixels.prepared(inputs, None if draws is None else [draws] * self.size)
            yield self._presented(inputs, targets)

    def _slice(self, split: str, part: slice) -> tuple[Tensor, Tensor]:
        if self.shared:
            inputs, targets = (tensor[part].expand(self.size, *tensor[part].shape) for tensor in self._splits[split])
            return inputs, targets
        inputs, targets = (tensor[:, part] for tensor in self._splits[split])
        return inputs, targets

    def _draws(self, images: int, seed: int, step: int) -> Draws:
        """What the augmentation does to each image of a batch."""
        assert self._pixels is not None
        return self._pixels.augmentation.draw(images, generator(seed, "augment", step))


class _Pixels:
    """From uint8 pixels to the inputs of a network: to [0, 1], augmentation, standardisation."""

    def __init__(self, augmentation: Augmentation, mean: Tensor, std: Tensor) -> None:
        self.augmentation, self._mean, self._std = augmentation, mean, std

    @classmethod
    def of(cls, datasets: Sequence[Dataset], device: torch.device) -> "_Pixels | None":
        """None where the inputs are no pixels."""
        first = datasets[0]
        alike = {(d.train_inputs.dtype == torch.uint8, d.mean, d.std, id(d.augmentation)) for d in datasets}
        check(len(alike) == 1, "replicas of one ensemble must have their pixels augmented and standardised alike")
        if first.train_inputs.dtype != torch.uint8:
            return None
        mean, std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (first.mean, first.std))
        return cls(first.augmentation or AUGMENTATIONS["none"], mean, std)

    def prepared(self, pixels: Tensor, draws: Sequence[Draws] | None) -> Tensor:
        """uint8 [R, batch, C, H, W] and its draws (None: as they are) -> [R, views * batch, C, H, W]."""
        inputs = pixels.float().div_(255)
        if draws is not None:
            rows = [self.augmentation.apply(row, draw) for row, draw in zip(inputs, draws, strict=True)]
            inputs = torch.stack(rows) if len(rows) > 1 else rows[0].unsqueeze(0)
        return (inputs - self._mean).div_(self._std)
