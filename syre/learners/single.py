"""A lone run: the plain module and its stock optimizer."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any
from warnings import warn

import torch
from torch import Tensor, nn

from syre import distributed
from syre.checks import check
from syre.learners.protocol import Loss, Replica, keep_freed_memory
from syre.models.layers import takes_channels_last
from syre.models.noise import Noisy
from syre.seeding import restore_generator


class Single:
    """R = 1: the plain module and its stock optimizer; in one process, or in several (`syre.distributed`).

    Args:
        replica: the run.
        autocast: bfloat16 for training in mixed precision; evaluations are in the precision of the weights, for the
            features of a bf16 forward pass would have the rank of their rounding.
        compiled: train through `torch.compile`; where that fails, say so once and go on without.
        accumulate: split every batch into so many parts, whose gradients are averaged before the step: less memory.
            BatchNorm then normalises each part by itself, and a contrastive loss has its negatives in the part.
    """

    size = 1

    def __init__(
        self, replica: Replica, *, autocast: torch.dtype | None = None, compiled: bool = False, accumulate: int = 1
    ) -> None:
        self.replica, self.replicas = replica, [replica]
        self.model, self.optimizer = replica.model, replica.optimizer
        self._parallel = distributed.parallel(self.model)
        self._call: Callable[..., Any] = self._parallel
        if compiled:  # inductor would lay any convolution out as channels-last
            options: dict[str, Any] | None = None if takes_channels_last(self.model) else {"layout_optimization": False}
            self._call = torch.compile(self._parallel, options=options)
        self._untried = compiled  # whether compilation may still fail
        self._autocast, self._accumulate = autocast, accumulate
        self._noisy = [module for module in self.model.modules() if isinstance(module, Noisy) and module.is_active()]
        self._device = next(self.model.parameters()).device
        self._lrs = [group["lr"] for group in self.optimizer.param_groups]
        keep_freed_memory()

    def forward(self, *inputs: Tensor, train: bool = False, **options: Any) -> Any:
        """The output with a leading axis of 1; no gradient."""
        self.model.train(train)
        with torch.no_grad():
            output = self.model(*(tensor[0] for tensor in inputs), **options)
        return tuple(o.unsqueeze(0) for o in output) if isinstance(output, tuple) else output.unsqueeze(0)

    def step(self, loss_fn: Loss, batch: Sequence[Tensor], *, lr_factor: float, clip: float | None) -> Tensor:
        """One step of the stock optimizer; the loss before it, [1]."""
        if not self.model.training:  # going through all modules takes as long as a small layer
            self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        whole = [tensor[0] for tensor in batch]
        parts = self._parts(whole) if self._accumulate > 1 else [whole]
        losses = []
        for part in parts:  # in a comprehension an error's traceback would keep the model alive
            losses.append(self._backward(loss_fn, part, part is parts[-1]))
        if clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        for group, lr in zip(self.optimizer.param_groups, self._lrs, strict=True):
            group["lr"] = lr * lr_factor
        self.optimizer.step()
        return torch.stack(losses).sum(0, keepdim=True) if len(losses) > 1 else losses[0].unsqueeze(0)

    def _parts(self, batch: Sequence[Tensor]) -> list[list[Tensor]]:
        """A batch in `accumulate` parts, each with all views of its samples."""
        inputs, *rest = batch
        samples, parts = len(rest[0]) if rest else len(inputs), self._accumulate
        check(samples % parts == 0, f"train.batch_size must be a multiple of train.accumulate={parts}, got {samples}")
        views = inputs.unflatten(0, (-1, samples))
        slices = [slice(start, start + samples // parts) for start in range(0, samples, samples // parts)]
        return [[views[:, some].flatten(0, 1), *(tensor[some] for tensor in rest)] for some in slices]

    def _backward(self, loss_fn: Loss, batch: Sequence[Tensor], last: bool) -> Tensor:
        """The loss of one part of a batch, as a share of the whole, and its gradients added to those of the others."""
        for module in self._noisy:
            noise = module.draw(len(batch[0]) * distributed.world(), self.replica.noise)
            module.noise = distributed.shard(noise, len(batch[-1])).to(self._device)
        while True:
            try:
                with distributed.sync_gradients(self._parallel, last):
                    with torch.autocast(self._device.type, self._autocast) if self._autocast else nullcontext():
                        loss = loss_fn(self._call(batch[0]), *batch)
                    if self._accumulate > 1:
                        loss = loss / self._accumulate
                    loss.backward()
                self._untried = False
                return loss.detach()
            except Exception as error:
                if not self._untried or isinstance(error, torch.OutOfMemoryError):
                    raise
                warn(f"torch.compile failed, training goes on without it: {str(error).splitlines()[0]}", stacklevel=2)
                self._call, self._untried = self._parallel, False
                self.optimizer.zero_grad(set_to_none=True)

    def enter(self, stage: int) -> None:
        self.vary(stage)
        self.replica.renew(dict(self.model.named_parameters()), stage)

    def vary(self, stage: int) -> None:
        self.replica.vary(stage)

    def parameters(self) -> dict[str, Tensor]:
        return {name: parameter.detach().unsqueeze(0) for name, parameter in self.model.named_parameters()}

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "noise": self.replica.noise.get_state(),
            **self.replica.progress(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        restore_generator(self.replica.noise, state["noise"])
        self.replica.go_on(state)
