"""One run over several processes, as started by `torchrun --nproc-per-node W`: each takes its share of every batch.

The numbers are those of a single process, to rounding: gradients and losses are averaged over the ranks, BatchNorm
normalises by the batch of all ranks, a contrastive loss has the negatives of all ranks (`gather`), and dropout draws
the masks of the whole batch. So the number of processes is no part of a run's identity; its record says "2 x cpu".
(One exception: `train.accumulate` splits each rank's share, so the parts hold other samples than in one process, which
BatchNorm and contrastive losses notice.) Every rank evaluates the whole split, and all get the same: an evaluation on
rank 0 alone would take as long, and the others, waiting, would run into the time limit of their connection.

In a single process, which is one not started by torchrun or started as the only one, everything here does nothing.
"""

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from inspect import signature
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from syre.checks import check

# ---- the processes ---------------------------------------------------------------------------------------------------


def world() -> int:
    """The number of processes of this run, as torchrun says; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process, from 0; rank 0 writes and prints."""
    return int(os.environ.get("RANK", "0")) if world() > 1 else 0


class _State:
    """Where this process stands."""

    store: dist.Store | None = None  # what the ranks have in common
    local: bool = False  # inside `local_only`
    reports: bool | None = None  # whether it is this process that reports the failure there was


@contextmanager
def join(device: torch.device) -> Iterator[torch.device]:
    """Join the other processes, over nccl on GPUs and gloo on CPUs; the device of this one.

    On GPUs each process takes the one with the number LOCAL_RANK.

    Raises:
        ValueError: more processes than GPUs.
    """
    if world() == 1:
        yield device
        return
    if device.type == "cuda":
        here, count = int(os.environ.get("LOCAL_WORLD_SIZE", world())), torch.cuda.device_count()
        check(here <= count, f"torchrun started {here} processes for {count} GPUs: --nproc-per-node {count}")
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    _State.store, number, size = next(dist.rendezvous("env://"))
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=_State.store, rank=number, world_size=size)
    try:
        yield device
    finally:
        dist.destroy_process_group()
        _State.store = None


def joined() -> bool:
    """Whether this process now works with others."""
    return not _State.local and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


@contextmanager
def local_only() -> Iterator[None]:
    """What every rank does for itself, with all of the data: an evaluation."""
    before, _State.local = _State.local, True
    try:
        yield
    finally:
        _State.local = before


def barrier() -> None:
    """Wait for the others."""
    if joined():
        dist.barrier()


def broadcast(value: bool) -> bool:
    """What rank 0 says, to all ranks; they wait for it. The value itself in a single process."""
    if not joined():
        return value
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
    word = torch.tensor(value, dtype=torch.uint8, device=device)
    dist.broadcast(word, 0)
    return bool(word)


# ---- failures --------------------------------------------------------------------------------------------------------
# When one process ends in an error, torchrun ends the others at once; those that wait for it see a broken connection.


@contextmanager
def failure() -> Iterator[bool]:
    """Whether this process is the first to fail, and writes down why; the others wait until it has."""
    if not joined() or _State.store is None:
        yield True
        return
    _State.reports = _State.store.add("failed", 1) == 1
    if not _State.reports:
        with suppress(RuntimeError):
            _State.store.wait(["reported"], timedelta(seconds=60))
    try:
        yield _State.reports
    finally:
        if _State.reports:
            _State.store.set("reported", "")


def wait_for_report() -> None:
    """Let the process that is to print an error do so: as soon as it has, torchrun ends this one."""
    if world() > 1 and not (rank() == 0 if _State.reports is None else _State.reports):
        time.sleep(20)


# ---- tensors ---------------------------------------------------------------------------------------------------------


# Not torch.distributed.nn.functional, whose collectives are differentiable too: torch 2.15 deprecates it for private
# functions, which torch 2.11 does not have.
class _Sum(torch.autograd.Function):
    """The sum over ranks; its gradient is summed over the ranks' losses."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _Sum.forward(ctx, grads[0])


def gather(x: Tensor) -> Tensor:
    """The rows of all ranks, x [..., n, d] -> [..., W n, d], in the order of the ranks; x itself in a single process.

    The gradient flows back to the rank that each row came from, summed over the ranks' losses L_k,

        dx_r = sum_k  dL_k / dx_r,        and DDP's mean over ranks makes of it
        (1/W) sum_r  dx_r . dx_r/dtheta  =  d/dtheta (1/W) sum_k L_k.

    So the step is the single process's whenever (1/W) sum_k L_k is the loss of the global batch: each rank may take the
    mean loss of its own rows against all rows, or the loss of all rows, the same on each rank. (Cutting the gathered
    rows of others off from the gradient, as a plain all_gather does, loses the terms dL_k/dx_r with k != r.)

    Rows are put together by rank: of a batch of several views, [views n, d], gather each view by itself.
    """
    if not joined():
        return x
    rank, rows = dist.get_rank(), x.shape[-2]  # its place among the rows of all; those of the others are 0 here
    place = (0, 0, rank * rows, (dist.get_world_size() - 1 - rank) * rows)
    return _Sum.apply(nn.functional.pad(x, place))


def average(x: Tensor) -> Tensor:
    """The mean over ranks; its gradient, as that of `gather`, is summed over the ranks' losses. x if there is one."""
    return _Sum.apply(x) / dist.get_world_size() if joined() else x


def shard(x: Tensor, batch: int) -> Tensor:
    """This rank's rows of what was drawn for the whole batch: [views W batch, ...] -> [views batch, ...]."""
    if world() == 1:
        return x
    return x.unflatten(0, (-1, world(), batch))[:, rank()].flatten(0, 1)


# ---- modules ---------------------------------------------------------------------------------------------------------


class _SyncBatchNorm(_BatchNorm):
    """BatchNorm over the batch of all ranks on a CPU, where nn.SyncBatchNorm does not work."""

    def _check_input_dim(self, input: Tensor) -> None: ...

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and joined()):
            return super().forward(x)
        axes = [0, *range(2, x.dim())]
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = average(wide.mean(axes, keepdim=True))
        centred = wide - mean
        variance = average(centred.square().mean(axes, keepdim=True))
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            factor = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
            samples = dist.get_world_size() * x.numel() // x.shape[1]
            self.running_mean.lerp_(mean.detach().flatten(), factor)
            self.running_var.lerp_(variance.detach().flatten() * samples / (samples - 1), factor)
        y = centred * torch.rsqrt(variance + self.eps)
        if self.affine:
            column = (-1, *(1,) * (x.dim() - 2))
            y = y * self.weight.view(column) + self.bias.view(column)
        return y.to(x.dtype)


def parallel(model: nn.Module) -> nn.Module:
    """The module to train through: backward averages the gradients over ranks. In a single process the model itself.

    The model keeps its parameters and their names; its BatchNorms are exchanged, here and for good, for ones that
    normalise by the batch of all ranks (`nn.SyncBatchNorm`; on a CPU, one of ours). All ranks start from the
    parameters of rank 0.
    """
    if not joined():
        return model
    if next(model.parameters()).is_cuda:
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    else:
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.__class__ = _SyncBatchNorm
    # Buffers are not to be sent around: those of noise differ, all others are equal.
    new = "forward_sync_buffers" in signature(DistributedDataParallel).parameters  # the name since torch 2.15
    options: Any = {"forward_sync_buffers" if new else "broadcast_buffers": False}
    return DistributedDataParallel(model, **options)


def sync_gradients(model: nn.Module, last: bool) -> AbstractContextManager[None]:
    """For the forward and backward of one part of a batch: gradients are averaged over ranks with the last one only."""
    return nullcontext() if last or not isinstance(model, DistributedDataParallel) else model.no_sync()
