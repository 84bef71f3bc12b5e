"""A sweep killed at any instant and run again ends with the tables of an undisturbed one, byte for byte.

SYRE_KILLS=10 SYRE_KILL_SWEEP="experiment=fig5 scale=smoke" python -m pytest tests/experiments/test_resume.py
"""

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

KILLS = int(os.environ.get("SYRE_KILLS", "3"))
# Twenty checkpoints; a group of 19 runs, with syre and dropout in it, and a lone run with dropout.
SWEEP = os.environ.get("SYRE_KILL_SWEEP", "experiment=fig5 scale=smoke regularizer=syre,dropout seed=0 replicas=19 "
                       "train.epochs=8 model.hidden=[64,64]").split()  # fmt: skip


def start(words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> subprocess.Popen:
    """The sweep, in a process group of its own."""
    places = [f"outputs={folder / 'outputs'}", f"results={folder / 'results'}"]
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.run", "-m", *words, *places], cwd=folder, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def finish(words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> float:
    """Run the sweep to its end; the seconds it took once it had said what it will train."""
    process = start(words, folder, environment)
    process.stdout.readline()
    began = time.monotonic()
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return time.monotonic() - began


def tables(folder: Path) -> tuple[str, bytes]:
    """runs.csv without the columns of provenance, and metrics.csv."""
    (runs,) = folder.glob("outputs/*/results-*/*/runs.csv")
    frame = pd.read_csv(runs, dtype=str, keep_default_na=False)
    return without_provenance(frame).to_csv(index=False), runs.with_name("metrics.csv").read_bytes()


def kill(words: Sequence[str], folder: Path, environment: Mapping[str, str], after: float) -> set[int]:
    """`kill -9` the process group of the sweep so many seconds after it began; the steps of the checkpoints left.

    Step 0 is a group that has begun, and has no checkpoint yet.
    """
    process = start(words, folder, environment)
    process.stdout.readline()
    time.sleep(after)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    kept = [torch.load(path, weights_only=True) for path in folder.glob("outputs/*/groups/*.pt")]
    return {content["state"]["step"] if content["state"] else 0 for content in kept}


@pytest.mark.slow
def test_a_sweep_killed_at_random_moments_ends_as_if_undisturbed(tmp_path, environment):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    seconds = finish(SWEEP, whole, environment)
    moments, steps = random.Random(0), set()
    for _ in range(KILLS):
        steps |= kill(SWEEP, killed, environment, after=moments.uniform(0, 1.5 * seconds / KILLS))
    assert max(steps, default=0) > 0  # control: the kills did leave something to resume
    finish(SWEEP, killed, environment)
    assert tables(killed) == tables(whole)
