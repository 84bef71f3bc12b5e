"""Data as the trainer takes it: one batch per step for each of R replicas, on one device."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from syre.checks import check
from syre.data import Dataset
from syre.seeding import generator

EVALUATION_SAMPLES = 1 << 16  # replicas x samples in one forward pass of an evaluation


class Batches:
    """Batches of R replicas: inputs [R, batch, ...] times each replica's own input scale, targets [R, batch].

    Epoch e of a run visits its training set in an order drawn from (seed, e) alone, so a run may resume at any step,
    and runs of the same seed see the same batches whatever their regularizer. The last, partial batch of an epoch is
    left out. A `batch_size` that reaches the size of the training set, or 0, means the full batch.

    Replicas whose data sets are one object share it in memory.

    A data set with permutations is a sequence of tasks, each the same samples with the features permuted: `stage`,
    which the trainer sets, says which one the batches are of.
    """

    def __init__(
        self,
        datasets: Sequence[Dataset],
        *,
        scales: Sequence[float],
        seeds: Sequence[int],
        batch_size: int,
        device: torch.device | str = "cpu",
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
        self._splits = {split: self._tensors(datasets, split) for split in ("train", "test")}
        n = datasets[0].train_inputs.shape[0]
        self.full = batch_size == 0 or batch_size >= n
        self.batch_size = n if self.full else batch_size
        self.steps_per_epoch = n // self.batch_size
        self._samples = n
        self._scale = torch.tensor(scales, device=self.device) if any(scale != 1 for scale in scales) else None
        self._order = lru_cache(maxsize=1)(self._draw_order)
        self._rows = torch.arange(self.size, device=self.device).unsqueeze(1)

    def _tensors(self, datasets: Sequence[Dataset], split: str) -> tuple[Tensor, Tensor]:
        """Inputs and targets of a split: [n, ...] if shared, else [R, n, ...]."""
        pairs = [(getattr(d, f"{split}_inputs"), getattr(d, f"{split}_targets")) for d in datasets]
        if self.shared:
            return pairs[0][0].to(self.device), pairs[0][1].to(self.device)
        inputs, targets = zip(*pairs, strict=True)
        return torch.stack(inputs).to(self.device), torch.stack(targets).to(self.device)

    def _draw_order(self, epoch: int) -> Tensor:
        """[R, n]: each replica's order of its training samples in this epoch."""
        orders = {seed: torch.randperm(self._samples, generator=generator(seed, "order", epoch)) for seed in self.seeds}
        return torch.stack([orders[seed] for seed in self.seeds]).to(self.device)

    def _scaled(self, inputs: Tensor) -> Tensor:
        """The inputs of this stage [R, batch, ...], at each replica's scale."""
        if self._permutations:
            flat = zip(inputs.flatten(2), self._permutations, strict=True)
            inputs = torch.stack([x[:, orders[self.stage]] for x, orders in flat]).view(inputs.shape)
        if self._scale is None:
            return inputs
        return inputs * self._scale.to(inputs.dtype).view(-1, *(1,) * (inputs.dim() - 1))

    def train(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of this step (from 0): inputs [R, batch, ...], targets [R, batch]."""
        if self.full:
            return self._slice("train", slice(None))
        epoch, position = divmod(step, self.steps_per_epoch)
        chosen = self._order(epoch)[:, position * self.batch_size : (position + 1) * self.batch_size]
        inputs, targets = self._splits["train"]
        if self.shared:
            return self._scaled(inputs[chosen]), targets[chosen]
        return self._scaled(inputs[self._rows, chosen]), targets[self._rows, chosen]

    def evaluation(self, split: str = "test") -> Iterator[tuple[Tensor, Tensor]]:
        """A whole split, in order, in chunks [R, chunk, ...]."""
        samples = self._splits[split][0].shape[0 if self.shared else 1]
        chunk = max(1, EVALUATION_SAMPLES // self.size)
        for start in range(0, samples, chunk):
            yield self._slice(split, slice(start, start + chunk))

    def _slice(self, split: str, part: slice) -> tuple[Tensor, Tensor]:
        inputs, targets = self._splits[split]
        if self.shared:
            inputs, targets = (t[part].expand(self.size, *t[part].shape) for t in (inputs, targets))
        else:
            inputs, targets = inputs[:, part], targets[:, part]
        return self._scaled(inputs), targets
