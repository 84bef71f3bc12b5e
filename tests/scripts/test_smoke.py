"""`make smoke`: each experiment in a process of its own, and what failed is named and no reason to leave others out."""

import os
import sys
from pathlib import Path

import pytest

from experiments import run
from experiments.engine.experiment import CONFIGS
from scripts import smoke

TRAINED = ("fig1", "fig2", "fig3", "fig4")


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """`make smoke` with stand-ins for the trainings, which leave their process ids; name -> how it ends."""

    def call(ends):
        def cli():
            name = sys.argv[2].removeprefix("experiment=")
            (tmp_path / name).write_text(str(os.getpid()))
            if end := ends.get(name):
                raise end

        monkeypatch.setattr(run, "cli", cli)
        monkeypatch.setattr(smoke, "names", lambda: list(TRAINED))
        monkeypatch.setattr(smoke, "LOADED", ())
        return smoke.main([]), {path.name: int(path.read_text()) for path in tmp_path.iterdir()}

    return call


def test_each_is_a_process_of_its_own(trained, capfd):
    code, processes = trained({})
    assert code == 0
    assert processes.keys() == {*TRAINED}
    assert len({*processes.values(), os.getpid()}) == 1 + len(TRAINED)
    assert capfd.readouterr().err == ""


def test_what_failed_is_named_and_the_others_are_trained(trained, capfd):
    code, processes = trained({"fig2": SystemExit(2), "fig3": RuntimeError("a fault"), "fig4": SystemExit(0)})
    assert code == 1
    assert processes.keys() == {*TRAINED}
    err = capfd.readouterr().err
    assert "RuntimeError: a fault" in err
    assert err.endswith("failed at smoke scale: fig2, fig3\n")


def test_all_experiments_are_trained_but_what_needs_pybullet_where_there_is_none(monkeypatch, capsys):
    every = sorted(path.stem for path in Path(CONFIGS / "experiment").glob("*.yaml"))
    monkeypatch.setattr(smoke, "find_spec", lambda name: None)
    assert smoke.names() == [name for name in every if name != "ant"]
    assert "ant: left out, PyBullet's packages end at Python 3.11" in capsys.readouterr().err
    assert smoke.words("fig6")[-1] == "data.backend=mujoco"
    monkeypatch.setattr(smoke, "find_spec", lambda name: "here")
    assert smoke.names() == every
    assert smoke.words("fig6", "joblib") == ["-m", "experiment=fig6", "scale=smoke", "hydra/launcher=joblib"]
