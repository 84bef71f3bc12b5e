"""A sweep killed at any instant and run again ends with the tables of an undisturbed one, byte for byte.

SYRE_KILLS=10 SYRE_KILL_SWEEP="experiment=fig5 scale=smoke" python -m pytest .../test_resume.py -k sweep
SYRE_KILLS=5 python -m pytest .../test_resume.py -k ants
SYRE_KILLS=50 python -m pytest .../test_resume.py -k instant -s     a log of 50 kills, one line each
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
import types
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pytest
import torch
from hydra.core.hydra_config import HydraConfig

from experiments import run
from experiments.analysis.results import without_provenance
from experiments.engine import training
from experiments.engine.config import Run, identity
from experiments.engine.expand import Group
from experiments.engine.store import Outcome, RunStore
from tests.physics import needs_bullet

KILLS = int(os.environ.get("SYRE_KILLS", "2"))
SWEEPS = {
    # Twenty checkpoints; a group of 19 runs, with syre and dropout in it, and a lone run with dropout.
    "networks": os.environ.get(
        "SYRE_KILL_SWEEP", "experiment=fig5 scale=smoke regularizer=syre,dropout seed=0 replicas=19 "
        "train.epochs=8 model.hidden=[64,64] train.checkpoints=20"),
    # Forty checkpoints; an ant in each physics, whose episodes and friction do not end where rollouts do.
    "ants": "experiment=fig6 scale=smoke regularizer=syre regularizer.sigma=0.1 seed=0 train.steps=10240 "
            "train.checkpoints=39 task.rollout=256 data.change_every=700",
}  # fmt: skip


def start(words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> subprocess.Popen:
    """The sweep, in a process group of its own."""
    places = [f"outputs={folder / 'outputs'}", f"results={folder / 'results'}"]
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.run", "-m", *words, *places], cwd=folder, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def finish(words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
    """Run the sweep to its end."""
    process = start(words, folder, environment)
    _, errors = process.communicate()
    assert process.returncode == 0, errors


def tables(folder: Path) -> tuple[str, bytes]:
    """runs.csv without the columns of provenance, and metrics.csv."""
    (runs,) = folder.glob("outputs/*/results-*/*/runs.csv")
    frame = pd.read_csv(runs, dtype=str, keep_default_na=False)
    return without_provenance(frame).to_csv(index=False), runs.with_name("metrics.csv").read_bytes()


def written(folder: Path) -> set[tuple[str, int]]:
    """The checkpoints that are there, with their times."""
    return {(path.name, path.stat().st_mtime_ns) for path in folder.glob("outputs/*/groups/*.pt") if path.exists()}


def kill(words: Sequence[str], folder: Path, environment: Mapping[str, str], after: int, delay: float) -> set[int]:
    """`kill -9` the process group of the sweep `delay` seconds after so many checkpoints; the steps of those left.

    Step 0 is a group that has begun, and has no checkpoint yet.
    """
    process = start(words, folder, environment)
    process.stdout.readline()
    seen, old = set(), written(folder)
    while len(seen) < after and process.poll() is None:
        with contextlib.suppress(FileNotFoundError):  # replaced between the listing and the look
            seen |= written(folder) - old
        time.sleep(0.002)
    time.sleep(delay)
    with contextlib.suppress(ProcessLookupError):  # it was faster
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    kept = [torch.load(path, weights_only=True) for path in folder.glob("outputs/*/groups/*.pt")]
    return {content["state"]["step"] if content["state"] else 0 for content in kept}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["networks", pytest.param("ants", marks=needs_bullet)])
def test_a_sweep_killed_at_random_moments_ends_as_if_undisturbed(tmp_path, environment, name):
    sweep = SWEEPS[name].split()
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    finish(sweep, whole, environment)
    moments, steps = random.Random(0), set()
    for _ in range(KILLS):
        steps |= kill(sweep, killed, environment, after=moments.randint(2, 8), delay=moments.uniform(0, 0.2))
    assert max(steps, default=0) > 0  # control: the kills did leave something to resume
    finish(sweep, killed, environment)
    assert tables(killed) == tables(whole)


# ---- one run, over its whole life ------------------------------------------------------------------------------------

# Of figure 5 at smoke scale, with more epochs and checkpoints; its life is from the start of Python to the end.
RUN = ("experiment=fig5", "scale=smoke", "regularizer=syre", "regularizer.sigma=1", "regularizer.weight_decay=0.01",
       "data=digits", "train.epochs=100", "train.checkpoints=50", "train.evaluations=10")  # fmt: skip


def lone(folder: Path, environment: Mapping[str, str]) -> subprocess.Popen:
    """The run, as a user types it."""
    command = [sys.executable, "-m", "experiments.run", *RUN, f"outputs={folder / 'outputs'}"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            start_new_session=True)  # fmt: skip


def result(folder: Path) -> tuple[bytes, bytes]:
    """What a finished run has recorded, and what it was."""
    (place,) = folder.glob("outputs/fig5/runs/*")
    assert (place / "done").exists()
    return (place / "metrics.csv").read_bytes(), (place / "config.yaml").read_bytes()


def left(folder: Path) -> str:
    """What a kill has left of the run, in words."""
    if list(folder.glob("outputs/fig5/runs/*/done")):
        return "the finished run"
    for path in folder.glob("outputs/fig5/groups/*.pt"):
        state = torch.load(path, weights_only=True)["state"]
        return f"a checkpoint at step {state['step']}" if state else "a run that has begun"
    return "nothing"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, environment):
    """How long the run takes, and its result."""
    whole, start = tmp_path_factory.mktemp("whole"), time.monotonic()
    process = lone(whole, environment)
    assert process.wait() == 0, process.communicate()
    return time.monotonic() - start, result(whole)


@pytest.mark.slow
@pytest.mark.xdist_group("life")  # one process knows the undisturbed one
def test_a_run_killed_at_any_instant_of_its_life_resumes_to_the_same_result(tmp_path, environment, undisturbed):
    life, expected = undisturbed
    instants, wrong = random.Random(1), []
    print(f"\nundisturbed: {life:.1f} s")
    for number in range(1, KILLS + 1):
        folder, instant = tmp_path / str(number), instants.uniform(0, life)
        process = lone(folder, environment)
        time.sleep(instant)
        with contextlib.suppress(ProcessLookupError):  # it was faster
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        what = left(folder)
        again = lone(folder, environment)
        _, err = again.communicate()
        same = again.returncode == 0 and result(folder) == expected
        clean = list(folder.glob("outputs/fig5/groups/*")) == []
        outcome = "the same result" if same and clean else f"ANOTHER RESULT {err}"
        print(f"{number:3}: kill -9 after {instant:5.2f} s left {what}; resumed to {outcome}", flush=True)
        wrong += [] if same and clean else [number]
    assert wrong == []


@pytest.mark.slow
@pytest.mark.xdist_group("life")
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGUSR2])
def test_a_run_asked_to_stop_keeps_a_checkpoint_of_that_very_step_and_goes_on_from_it(
    tmp_path, environment, undisturbed, sign
):
    _, expected = undisturbed
    folder = tmp_path / "stopped"
    process = lone(folder, environment)
    while not list(folder.glob("outputs/fig5/groups/*.step")):
        time.sleep(0.01)
    process.send_signal(sign)
    _, err = process.communicate()
    assert (process.returncode, err) == (128 + signal.SIGTERM, "")
    assert not list(folder.glob("outputs/fig5/runs/*"))
    assert not list(folder.glob("outputs/fig5/groups/*.lock"))
    (path,) = folder.glob("outputs/fig5/groups/*.pt")
    step, total, _ = map(int, path.with_suffix(".step").read_text().split())
    assert torch.load(path, weights_only=True)["state"]["step"] == step < total
    assert lone(folder, environment).wait() == 0
    assert result(folder) == expected


@pytest.mark.parametrize("asked", [True, False])
def test_a_signal_that_comes_after_the_last_step_ends_what_would_come_next(tmp_path, composed, monkeypatch, asked):
    """In the last evaluation nobody asks any more; a sweep in one process went on with its next group."""
    heard: list[int] = []

    def train(*_, **__):
        if asked:
            signal.raise_signal(signal.SIGTERM)
        return Outcome.done

    monkeypatch.setattr(training, "train_group", train)
    monkeypatch.setattr(HydraConfig, "get", lambda: types.SimpleNamespace(launcher={}))
    group = Group(runs=[Run(config=identity(composed()))])
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        assert run._train(group, RunStore(tmp_path), composed()) == Outcome.done
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM] * asked
