"""A sweep killed at any instant and run again ends with the tables of an undisturbed one, byte for byte.

SYRE_KILLS=10 SYRE_KILL_SWEEP="experiment=fig5 scale=smoke" python -m pytest tests/experiments/test_resume.py
SYRE_KILLS=5 python -m pytest tests/experiments/test_resume.py -k ants
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pytest
import torch

from experiments.results import without_provenance
from tests.physics import needs_bullet

KILLS = int(os.environ.get("SYRE_KILLS", "3"))
SWEEPS = {
    # Twenty checkpoints; a group of 19 runs, with syre and dropout in it, and a lone run with dropout.
    "networks": os.environ.get(
        "SYRE_KILL_SWEEP", "experiment=fig5 scale=smoke regularizer=syre,dropout seed=0 replicas=19 "
        "train.epochs=8 model.hidden=[64,64]"),
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
