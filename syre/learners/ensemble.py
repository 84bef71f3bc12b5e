"""Many runs trained as one: R replicas of a module, stacked, stepped together, each on its own trajectory.

A replica is a lone run up to the moment of stacking. So learning rate, decay, sigma, input scale, dropout rate and seed
may all differ between replicas, and replica k takes the steps that it would have taken alone. The gradient of the
summed loss is each replica's own. What cannot be repeated by rows is refused (`repeatable`).
"""

from collections.abc import Sequence
from typing import Any, cast
from warnings import filterwarnings

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.overrides import TorchFunctionMode

from syre.core.decay import effect_of
from syre.learners.batched import BatchedOptimizer
from syre.learners.protocol import Loss, Replica, keep_freed_memory
from syre.learners.repeatable import effects
from syre.models.base import Model
from syre.models.noise import Noisy
from syre.seeding import restore_generator


class Ensemble:
    """R stacked replicas: parameters are views of one tensor `flat [R, P]`, which one batched optimizer steps.

    A module that says `leading_dims = True` runs directly on stacked parameters (its linear layers as batched matrix
    products); any other runs under `torch.func.vmap`. The two agree (tested).

    Raises:
        ValueError: replicas of different structure, or one that does what rows cannot repeat (see `repeatable`).
    """

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self.replicas, self.size = list(replicas), len(replicas)
        done = effects(replicas)
        models = [replica.model for replica in replicas]
        self.model = models[0]
        # not by nn.utils.parameters_to_vector, which takes no weights in channels-last memory
        self.flat = torch.stack([torch.cat([p.detach().reshape(-1) for p in model.parameters()]) for model in models])
        buffers = [dict(model.named_buffers()) for model in models]
        self.buffers = {name: torch.stack([its[name] for its in buffers]) for name in buffers[0]}
        named = dict(self.model.named_parameters())
        sizes = [parameter.numel() for parameter in named.values()]
        self.leaves = {
            name: view.view(self.size, *parameter.shape).requires_grad_()
            for (name, parameter), view in zip(named.items(), self.flat.split(sizes, 1), strict=True)
        }
        self.optimizer = BatchedOptimizer(self.flat, [replica.optimizer for replica in replicas], self.model, done)
        self._grad = torch.empty_like(self.flat)
        columns = self._grad.split(sizes, 1)
        self._grads = [view.view_as(leaf) for view, leaf in zip(columns, self.leaves.values(), strict=True)]
        keep_freed_memory()
        self._direct = isinstance(self.model, Model) and self.model.leading_dims
        if not self._direct:  # where vmap has no rule for an operation it loops over the replicas: slower, and as right
            filterwarnings("ignore", "There is a performance drop because we have not yet implemented")
        self._noisy: dict[str, dict[int, Noisy]] = {}  # name -> the modules of those replicas whose noise matters
        for name, module in self.model.named_modules():
            if isinstance(module, Noisy):
                each = enumerate(cast(Noisy, model.get_submodule(name)) for model in models)
                if active := {row: its for row, its in each if its.is_active()}:
                    self._noisy[name] = active

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
        samples = batch[0].shape[1]
        for name, active in self._noisy.items():
            rows = {row: module.draw(samples, self.replicas[row].noise) for row, module in active.items()}
            noise = torch.zeros(self.size, *rows[min(rows)].shape, device=self.flat.device)
            for row, drawn in rows.items():
                noise[row] = drawn
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
        self.vary(stage)
        for row, replica in enumerate(self.replicas):
            replica.renew({name: leaf.detach()[row] for name, leaf in self.leaves.items()}, stage)

    def vary(self, stage: int) -> None:
        varied = [replica.vary(stage) for replica in self.replicas]  # each of them, not up to the first that does
        if any(varied):
            self.optimizer.take(self.model, [effect_of(replica.handle) for replica in self.replicas])

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
            restore_generator(replica.noise, noise)


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
