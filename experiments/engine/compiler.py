"""torch's compiler, which takes as long to load as torch itself: every optimizer does, and only a graph needs it."""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

NAME, ATTRIBUTE = "torch._dynamo", "_dynamo"


class _Unloaded(ModuleType):
    """In place of the compiler: what optimizers ask of it, which does nothing outside a graph. All else loads it."""

    @staticmethod
    def graph_break(msg: str = "") -> None:
        """There is no graph to break."""

    @staticmethod
    def disable(fn: Callable[..., Any], *_: Any, **__: Any) -> Callable[..., Any]:
        """The function itself, for nothing is compiled."""
        return fn

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":  # `inspect` looks at __file__ of all that is imported
            raise AttributeError(name)
        return getattr(load(), name)


def spare() -> None:
    """Leave the compiler unloaded, if it still is, until more is asked of it than an optimizer does.

    At the first step of a process `torch.optim` imports `torch._dynamo`, for two functions that do nothing there.
    """
    if NAME not in sys.modules:
        torch.__dict__[ATTRIBUTE] = sys.modules[NAME] = _Unloaded(NAME)


def load() -> ModuleType:
    """The compiler itself."""
    if isinstance(sys.modules.get(NAME), _Unloaded):
        del sys.modules[NAME], torch.__dict__[ATTRIBUTE]
    return importlib.import_module(NAME)
