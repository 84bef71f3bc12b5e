"""A sweep that is interrupted and submitted again twice has every run once in its tables, by joblib and by SLURM.

SYRE_RUNS=1000 python -m pytest tests/experiments/engine/test_large_sweep.py -k joblib -s     also: what a run takes
SYRE_RUNS=200 python -m pytest tests/experiments/engine/test_large_sweep.py -k slurm -s       200 jobs of one array
"""

import json
import os
import signal
import subprocess
import sys
import time
from statistics import median
from subprocess import PIPE, Popen

import pandas as pd
import pytest

from tests.experiments.engine.test_slurm import cluster  # noqa: F401
from tests.experiments.engine.test_slurm import pytestmark as slurm

RUNS = int(os.environ.get("SYRE_RUNS", "6"))
SWEEP = (
    "scale=smoke",
    "model.hidden=[32]",
    "train.epochs=2",
    "train.checkpoints=2",
    "replicas=1",
    "regularizer=weight_decay,syre",
    f"seed=range({RUNS // 2})",
)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", pytest.param("slurm", marks=slurm)])
def test_a_sweep_interrupted_and_submitted_again_twice_has_every_run_once(tmp_path, environment, request, launcher):
    if launcher == "slurm":
        environment = {**environment, **request.getfixturevalue("cluster")}
    words = [*SWEEP, f"hydra/launcher={launcher}", f"outputs={tmp_path / 'outputs'}"]
    runs, begin, parts = tmp_path / "outputs/run/runs", time.monotonic(), []

    def finished() -> int:
        return len(list(runs.glob("*/done")))

    for share in (1 / 3, 2 / 3, 1):
        start, before = time.monotonic(), finished()
        process = Popen(
            [sys.executable, "-m", "experiments.run", "-m", *words],
            cwd=tmp_path,
            env=environment,
            stdout=PIPE,
            stderr=PIPE,
            text=True,
            start_new_session=True,
        )
        first = process.stdout.readline()  # jobs of the command before may end before this one has planned its own
        if share < 1:
            while finished() < share * RUNS and process.poll() is None:
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C
        _, err = process.communicate()
        assert process.returncode == (130 if share < 1 else 0), err
        assert share == 1 or "the same command goes on" in err
        assert f"run: {RUNS} runs at scale smoke" in first
        parts.append((finished() - before, time.monotonic() - start))

    table = pd.read_csv(tmp_path / "outputs/run/results-custom/run/runs.csv", dtype={"id": str})
    assert sorted(table["id"]) == sorted(path.name for path in runs.iterdir())
    assert (len(table), table["id"].nunique(), set(table["status"])) == (RUNS, RUNS, {"done"})
    assert table.groupby("regularizer.name")["seed"].nunique().tolist() == [RUNS // 2] * 2
    metrics = pd.read_csv(tmp_path / "outputs/run/results-custom/run/metrics.csv", dtype={"id": str})
    assert not metrics.duplicated(["id", "step", "split", "metric"]).any()
    assert metrics["id"].nunique() == RUNS
    groups = [path.name for path in runs.parent.glob("groups/*") if path.suffix != ".json"]
    assert groups == []

    training = [json.loads((path / "run.json").read_text())["seconds"] for path in runs.iterdir()]
    whole = time.monotonic() - begin
    print(
        f"\n{launcher}: {RUNS} runs in {whole:.0f} s, {whole / RUNS:.2f} s each, of which a run trains "
        f"{median(training):.2f} s (median) in one of {os.cpu_count()} processes"
    )
    for number, seconds in parts:
        print(f"  a command ended after {seconds:.0f} s with {number} runs more")
    if launcher == "slurm":
        arrays = list(runs.parent.glob("slurm/*_submission.sh"))
        print(f"  {len(arrays)} arrays were submitted")
        until = time.monotonic() + 60  # Python is still going down in the last jobs
        while subprocess.run(["squeue", "--noheader"], env=environment, capture_output=True, check=True).stdout:
            assert time.monotonic() < until
            time.sleep(0.5)
