"""Many runs trained as one: R replicas of a module, stacked, stepped together, each on its own trajectory.

A replica is a lone run up to the moment of stacking: a module, a stock optimizer, what its regularizer attached, and
its noise stream. So learning rate, decay, sigma, input scale, dropout rate and seed may all differ between replicas,
and replica k takes the steps that it would have taken alone. The gradient of the summed loss is each replica's own.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, cast
from warnings import filterwarnings, warn

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

from syre import distributed
from syre.checks import check
from syre.models.layers import takes_channels_last
from syre.models.noise import Noisy
from syre.optim import BatchedOptimizer
from syre.regularizers import Handle, Renews
from syre.seeding import go_on

Loss = Callable[..., Tensor]  # (output [..., batch, ...], *batch) -> [...]: the mean over the batch, per replica

# Working set up to which replicas gain from sharing a step: above it they push one another out of the cache.
CACHE_BYTES = 24 * 2**20
MOST_REPLICAS = 64


@dataclass(frozen=True, kw_only=True)
class Replica:
    """One run, ready to train."""

    model: nn.Module
    optimizer: Optimizer
    handle: Handle | None = None
    noise: torch.Generator


class Learner(Protocol):
    """What the trainer needs: R replicas that can be evaluated and stepped. The leading axis R is always there."""

    size: int
    replicas: list[Replica]

    def forward(self, *inputs: Tensor, train: bool = False, **options: Any) -> Any: ...

    def step(self, loss_fn: Loss, batch: Sequence[Tensor], *, lr_factor: float, clip: float | None) -> Tensor: ...

    def enter(self, stage: int) -> None: ...

    def parameters(self) -> dict[str, Tensor]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def replicas_per_process(parameters: int, activations: int, batch: int, *, memory: int = CACHE_BYTES) -> int:
    """How many replicas to stack: as many as fit, `R (6 P + 3 B A) * 4 bytes <= memory`, at most 64.

    On a CPU what must fit is the cache; a GPU gains from every replica that fits its memory.

    Args:
        parameters: P, of one replica (weights, gradient, two moments, anchor, one temporary: 6 copies).
        activations: A, hidden and output units per sample (forward, backward, one temporary: 3 copies).
        batch: B, samples per step.
        memory: bytes.

    Returns:
        R; 1 (a lone run on a stock optimizer) where stacking would not gain. Measured by `make bench`.
    """
    fit = memory // (4 * (6 * parameters + 3 * batch * activations))
    return 1 if fit < 4 else min(fit, MOST_REPLICAS)


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
        self._noisy = [module for module in self.model.modules() if isinstance(module, Noisy) and module.wanted()]
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
            module.noise = distributed.share(noise, len(batch[-1])).to(self._device)
        while True:
            try:
                with distributed.part(self._parallel, last):
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
        """Begin task `stage`: what renews the weights between tasks does so now."""
        if isinstance(self.replica.handle, Renews):
            self.replica.handle.renew(dict(self.model.named_parameters()), stage)

    def parameters(self) -> dict[str, Tensor]:
        return {name: parameter.detach().unsqueeze(0) for name, parameter in self.model.named_parameters()}

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "noise": self.replica.noise.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        go_on(self.replica.noise, state["noise"])


class Ensemble:
    """R stacked replicas: parameters are views of one tensor `flat [R, P]`, which one batched optimizer steps.

    A module that says `leading_dims = True` runs directly on stacked parameters (its linear layers as batched matrix
    products); any other runs under `torch.func.vmap`. The two agree (tested).

    Raises:
        ValueError: replicas of different structure, a module with running statistics (BatchNorm), or an optimizer whose
            groups do not list the parameters in the module's order.
    """

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self.replicas, self.size = list(replicas), len(replicas)
        models = [replica.model for replica in replicas]
        self.model = models[0]
        shapes = [{name: tuple(p.shape) for name, p in model.named_parameters()} for model in models]
        check(all(shape == shapes[0] for shape in shapes), "replicas of one ensemble must have the same parameters")
        running = any(getattr(module, "track_running_stats", False) for module in self.model.modules())
        name = type(self.model).__name__
        check(not running, f"{name} keeps running statistics (BatchNorm): train it alone (replicas: 1)")
        for replica in replicas:
            stepped = [p for group in replica.optimizer.param_groups for p in group["params"]]
            check([id(p) for p in stepped] == [id(p) for p in replica.model.parameters()],
                  "the optimizer of a replica must step all its parameters, in the module's order")  # fmt: skip

        # not by nn.utils.parameters_to_vector, which takes no weights in channels-last memory
        self.flat = torch.stack([torch.cat([p.detach().reshape(-1) for p in model.parameters()]) for model in models])
        self.buffers = {
            name: torch.stack([dict(model.named_buffers())[name] for model in models])
            for name, _ in self.model.named_buffers()
        }
        names, sizes = list(shapes[0]), [parameter.numel() for parameter in self.model.parameters()]
        self.leaves = {
            name: view.view(self.size, *shapes[0][name]).requires_grad_()
            for name, view in zip(names, self.flat.split(sizes, 1), strict=True)
        }
        self.optimizer = BatchedOptimizer(
            self.flat, [replica.optimizer for replica in replicas], models, [replica.handle for replica in replicas]
        )
        self._grad = torch.empty_like(self.flat)
        columns = self._grad.split(sizes, 1)
        self._grads = [view.view_as(leaf) for view, leaf in zip(columns, self.leaves.values(), strict=True)]
        keep_freed_memory()
        self._direct = getattr(self.model, "leading_dims", False)
        if not self._direct:  # where vmap has no rule for an operation it loops over the replicas: slower, and as right
            filterwarnings("ignore", "There is a performance drop because we have not yet implemented")
        self._noisy: dict[str, tuple[Noisy, list[int]]] = {}  # name -> module, replicas whose noise matters
        for name, module in self.model.named_modules():
            if isinstance(module, Noisy):
                rows = [k for k, model in enumerate(models) if cast(Noisy, model.get_submodule(name)).wanted()]
                if rows:
                    self._noisy[name] = (module, rows)

    def _call(self, inputs: Sequence[Tensor], options: dict[str, Any]) -> Any:
        if self._direct:
            with _BatchedLinear():
                return functional_call(self.model, {**self.leaves, **self.buffers}, tuple(inputs), options)
        one = lambda leaves, buffers, *args: functional_call(self.model, {**leaves, **buffers}, args, options)  # noqa: E731
        return vmap(one)(self.leaves, self.buffers, *inputs)

    def forward(self, *inputs: Tensor, train: bool = False, **options: Any) -> Any:
        """The outputs [R, ...] for inputs [R, ...]; no gradient."""
        self.model.train(train)
        with torch.no_grad():
            return self._call(inputs, options)

    def step(self, loss_fn: Loss, batch: Sequence[Tensor], *, lr_factor: float, clip: float | None) -> Tensor:
        """One step of every replica on its own batch; the losses before it, [R]. `clip` bounds each replica's norm."""
        self.model.train()
        for name, (module, rows) in self._noisy.items():
            noise = torch.zeros(self.size, batch[0].shape[1], *module.features, device=self.flat.device)
            for row in rows:
                noise[row] = module.draw(batch[0].shape[1], self.replicas[row].noise)
            self.buffers[f"{name}.noise"] = noise.to(self.flat)
        losses = loss_fn(self._call(batch[:1], {}), *batch)
        grads = torch.autograd.grad(losses.sum(), list(self.leaves.values()))
        for view, grad in zip(self._grads, grads, strict=True):
            view.copy_(grad)
        if clip is not None:
            norm = self._grad.norm(dim=1, keepdim=True)
            self._grad.mul_((clip / (norm + 1e-6)).clamp(max=1.0))
        self.optimizer.step(self._grad, lr_factor)
        return losses.detach()

    def enter(self, stage: int) -> None:
        """Begin task `stage`: what renews the weights between tasks does so now."""
        for row, replica in enumerate(self.replicas):
            if isinstance(replica.handle, Renews):
                replica.handle.renew({name: leaf.detach()[row] for name, leaf in self.leaves.items()}, stage)

    def parameters(self) -> dict[str, Tensor]:
        return {name: leaf.detach() for name, leaf in self.leaves.items()}

    def state_dict(self) -> dict[str, Any]:
        return {
            "flat": self.flat,
            "optimizer": self.optimizer.state_dict(),
            "noise": [replica.noise.get_state() for replica in self.replicas],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.flat.copy_(state["flat"])
        self.optimizer.load_state_dict(state["optimizer"])
        for replica, noise in zip(self.replicas, state["noise"], strict=True):
            go_on(replica.noise, noise)


def keep_freed_memory() -> None:
    """Let malloc keep what a step frees; else it goes back to the kernel, which zeroes it, page by page, for the next.

    Having once freed a block, glibc keeps up to twice its size; 32 MiB is the most it learns from. The block itself is
    never touched, and costs nothing.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


class _BatchedLinear(TorchFunctionMode):
    """Lets `F.linear` take a weight [R, out, in] and a bias [R, out]: `y[r]^T = W[r] x[r]^T + b[r]`.

    Computed transposed, with the batch as the last axis in memory: for the few features of small networks, products,
    their gradients and the softmax over classes are then up to ten times faster on a CPU.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.functional.linear and args[1].dim() == 3:
            x, weight, bias = args
            return (weight @ x.mT if bias is None else torch.baddbmm(bias.unsqueeze(-1), weight, x.mT)).mT
        return func(*args, **(kwargs or {}))


def learner(replicas: Sequence[Replica], **single: Any) -> Learner:
    """The learner for these replicas: a lone run on its stock optimizer, or an ensemble."""
    return Single(replicas[0], **single) if len(replicas) == 1 else Ensemble(replicas)
