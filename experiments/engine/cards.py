"""Runs side by side on a machine with GPUs (hydra/launcher=joblib): a process for each card, each on its own."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig


def spread(launcher: Any, config: DictConfig) -> None:
    """Let the joblib launcher start as many processes as there are GPUs, where runs train on them, not one per core.

    A number of processes that the command line sets stays; of more processes than cards, several share one. With
    compute.device=cuda:1 all is on that card: one process.
    """
    settings, device = getattr(launcher, "joblib", None), str(config.compute.device)
    if settings is None or device.split(":")[0] not in ("auto", "cuda"):
        return
    import torch  # here, for what is finished to need no torch

    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not cards:
        return
    named = ":" in device
    if not any(word.lstrip("+").startswith("hydra.launcher.n_jobs=") for word in config.hydra.overrides.hydra):
        settings["n_jobs"] = 1 if named else cards
    if named or cards == 1 or settings["n_jobs"] == 1:  # one process is this one
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(cards)))
    places = tempfile.mkdtemp(prefix="syre-cards-")
    atexit.register(shutil.rmtree, places, ignore_errors=True)
    launcher.task_function = partial(on_own_card, launcher.task_function, visible.split(",")[:cards], places)


class _Mine:
    """The place of this process among those of the sweep: held until it ends, however it ends."""

    lock: FileLock | None = None


def on_own_card(function: Callable[[Any], Any], cards: Sequence[str], places: str, argument: Any) -> Any:
    """Call the function in a process that sees one of the cards; the same one in all calls of a process."""
    if _Mine.lock is None:
        for place in count():
            lock = FileLock(Path(places) / str(place))
            with suppress(Timeout):
                lock.acquire(blocking=False)
                _Mine.lock, os.environ["CUDA_VISIBLE_DEVICES"] = lock, cards[place % len(cards)]
                break
    return function(argument)
