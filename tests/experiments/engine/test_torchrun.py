"""`torchrun -m experiments.run`: the tables of one process, written once; a sweep is refused in one line."""

import os
import subprocess
import sys

import pandas as pd
import pytest
import yaml

RUN = (
    "model=vit",
    "model.dim=16",
    "model.depth=1",
    "model.heads=2",
    "model.mlp=16",
    "data=rgb_digits",
    "data.augment=crop_flip",
    "data.samples=64",
    "data.test_samples=32",
    "regularizer=syre",
    "train.epochs=0",
    "train.steps=6",
    "train.batch_size=16",
    "train.evaluations=2",
    "train.checkpoints=1",
    "compute.device=cpu",
    "compute.precision=fp32",
)


@pytest.fixture
def torchrun(tmp_path, environment):
    """Two processes of `python -m experiments.run <words>`."""

    def call(*words):
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        return subprocess.run(
            [*launch, "-m", "experiments.run", *words], cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    return call


def metrics(folder):
    (place,) = (folder / "run/runs").iterdir()
    return pd.read_csv(place / "metrics.csv"), yaml.safe_load((place / "run.json").read_text())


@pytest.mark.slow
def test_two_processes_write_the_run_of_one(tmp_path, command, torchrun):
    done = torchrun(*RUN, f"outputs={tmp_path / 'two'}")
    assert (done.returncode, done.stdout.count("finished: ")) == (0, 1), done.stderr
    assert command(*RUN, f"outputs={tmp_path / 'one'}").code == 0
    (two, facts), (one, alone) = metrics(tmp_path / "two"), metrics(tmp_path / "one")
    assert (facts["id"], facts["status"], facts["device"]) == (alone["id"], "done", "2 x cpu")
    keys = ["step", "split", "metric"]
    pd.testing.assert_frame_equal(two[keys], one[keys])
    smooth = ~one["metric"].str.startswith("rank")  # float32: a rank may be at its threshold
    pd.testing.assert_frame_equal(two[smooth], one[smooth], rtol=1e-4)
    assert not list((tmp_path / "two/run/groups").glob("*.pt"))


@pytest.mark.parametrize("process", [0, 1])
def test_a_sweep_under_torchrun_is_one_line_of_the_first_process(tmp_path, command, monkeypatch, process):
    from syre import distributed

    waited = []
    monkeypatch.setattr(distributed.time, "sleep", waited.append)  # for torchrun to end it
    for name, value in {"WORLD_SIZE": 2, "RANK": process, "LOCAL_RANK": process}.items():
        monkeypatch.setitem(os.environ, name, str(value))
    outcome = command("-m", "seed=0,1", f"outputs={tmp_path / 'outputs'}")
    assert (outcome.code, outcome.err.count("\n"), outcome.out) == (2, 1, "")
    assert "torchrun trains one run" in outcome.err
    assert "group=" in outcome.err
    assert bool(waited) == (process == 1)
    assert list(tmp_path.iterdir()) == []
