"""Forward passes on the side: a model in the middle of its training is measured, and nothing of it has changed."""

import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import nn

WRAPPERS = {"DistributedDataParallel", "DataParallel", "DeepSpeedEngine", "OptimizedModule"}


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside torch.compile's, DDP's or DataParallel's wrapper: its forward pass asks no other process."""
    while any(kind.__name__ in WRAPPERS for kind in type(model).__mro__):
        model = cast(nn.Module, model._orig_mod if hasattr(model, "_orig_mod") else model.module)
    return model


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in eval mode, without gradients and uncompiled; afterwards it is as it was, to the bit.

    Its training flags, one by one, its buffers and the states of torch's, numpy's and Python's random numbers come
    back, also after an exception. The flags are written and `eval()` is not called, since that of some modules moves
    weights (LoRA's, which merges its adapters). In it attention takes no shortcut, so that all its products are seen.
    """
    modules = list(model.modules())
    flags = [module.training for module in modules]
    buffers = [
        (module, name, buffer, None if buffer.is_inference() else buffer._version, buffer.clone())
        for module in modules
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    mha: Any = torch.backends.mha
    python, numbers, shortcut = random.getstate(), np.random.get_state(), mha.get_fastpath_enabled()
    devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=sorted(devices)))
        stack.enter_context(torch.no_grad())
        stack.enter_context(_uncompiled(modules))
        try:
            mha.set_fastpath_enabled(False)
            for module in modules:
                module.training = False
            yield
        finally:
            mha.set_fastpath_enabled(shortcut)
            for module, flag in zip(modules, flags, strict=True):
                module.training = flag
            for module, name, buffer, version, copy in buffers:
                if version is None or buffer._version != version:
                    buffer.copy_(copy)
                module._buffers[name] = buffer
            random.setstate(python)
            np.random.set_state(numbers)


@contextmanager
def _uncompiled(modules: list[nn.Module]) -> Iterator[None]:
    """Inside, what torch.compile has compiled runs as it is written. What was never compiled costs nothing."""
    set_stance = getattr(torch.compiler, "set_stance", None)  # from torch 2.6 on
    if "torch._dynamo" in sys.modules and set_stance is not None:
        with set_stance("force_eager"):
            yield
        return
    compiled = [(module, call) for module in modules if (call := vars(module).get("_compiled_call_impl")) is not None]
    try:
        for module, _ in compiled:
            module._compiled_call_impl = None
        yield
    finally:
        for module, call in compiled:
            module._compiled_call_impl = call
