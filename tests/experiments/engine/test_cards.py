"""Side by side on one machine, each process has a GPU of its own; without one they are as they were."""

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from omegaconf import OmegaConf

from experiments.engine.cards import on_own_card, spread


def launcher() -> SimpleNamespace:
    """What hydra-joblib-launcher is to `spread`."""
    return SimpleNamespace(joblib={"n_jobs": -1, "prefer": "processes"}, task_function=len)


def config(device: str, *words: str) -> Any:
    return OmegaConf.create({"compute": {"device": device}, "hydra": {"overrides": {"hydra": list(words)}}})


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Any:
    """So many GPUs."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def are(count: int, visible: str | None = None) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return are


@pytest.mark.parametrize(("count", "device", "words", "processes"), [
    (0, "auto", [], -1),   # a process for each core
    (0, "cuda", [], -1),   # refused where it trains
    (2, "cpu", [], -1),
    (1, "auto", [], 1),
    (4, "auto", [], 4),
    (4, "cuda", [], 4),
    (4, "cuda:1", [], 1),
    (4, "auto", ["hydra/launcher=joblib", "hydra.launcher.n_jobs=9"], 9),
    (1, "auto", ["hydra.launcher.n_jobs=9"], 9),
    (4, "cuda:1", ["+hydra.launcher.n_jobs=2"], 2),
])  # fmt: skip
def test_as_many_processes_as_gpus_unless_told_otherwise(count, device, words, processes, gpus) -> None:
    gpus(count)
    ours = launcher()
    if words:
        ours.joblib["n_jobs"] = int(words[-1].split("=")[1])
    spread(ours, config(device, *words))
    assert ours.joblib == {"n_jobs": processes, "prefer": "processes"}
    assert (ours.task_function is len) == (not (count > 1 and device in ("auto", "cuda")))


def test_other_launchers_are_left_alone(gpus) -> None:
    gpus(4)
    ours = SimpleNamespace(task_function=len)
    spread(ours, config("auto"))
    assert vars(ours) == {"task_function": len}


@pytest.mark.parametrize(
    ("visible", "cards"), [(None, ["0", "1"]), ("3,5", ["3", "5"]), ("GPU-a,GPU-b", ["GPU-a", "GPU-b"])]
)
def test_the_cards_are_those_that_are_visible_here(visible, cards, gpus) -> None:
    gpus(2, visible)
    ours = launcher()
    spread(ours, config("auto"))
    assert ours.task_function.func is on_own_card
    assert ours.task_function.args[:2] == (len, cards)


@pytest.fixture
def new_processes() -> Iterator[None]:
    get_reusable_executor().shutdown()  # those of another test have their cards
    yield
    get_reusable_executor().shutdown()


@pytest.mark.usefixtures("new_processes")
@pytest.mark.parametrize(("processes", "shares"), [(2, [1, 1]), (3, [2, 1])], ids=["one each", "more than cards"])
def test_each_process_keeps_a_card_for_all_its_jobs(processes: int, shares: list[int], tmp_path: Path) -> None:
    def seen(places: Path) -> tuple[int, str]:  # in here, for the processes to need no torch
        """This process and its card, once there are all processes."""
        until = time.monotonic() + 60
        while len(list(places.iterdir())) < processes and time.monotonic() < until:
            time.sleep(0.02)
        return os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"]

    job = partial(on_own_card, seen, ["5", "7"], str(tmp_path))
    found = Parallel(n_jobs=processes, backend="loky")(delayed(job)(tmp_path) for _ in range(4 * processes))
    card_of = dict(found)
    assert len(set(found)) == len(card_of) == processes  # no process had two
    assert [list(card_of.values()).count(card) for card in ("5", "7")] == shares
