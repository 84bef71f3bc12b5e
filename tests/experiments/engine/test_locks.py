"""A group is trained by one process at a time; a process that is dead holds nothing, and the first to finish stays."""

import os
import signal
import subprocess
import sys
import time
from subprocess import PIPE, Popen

import pytest

from experiments.analysis.locks import hold, holder
from experiments.analysis.results import ResultsError
from tests.experiments.engine.test_resume import tables

HOLDS = "import sys, time, pathlib; from experiments.analysis.locks import hold\n" \
        "with hold(pathlib.Path(sys.argv[1])) as mine: print(mine, flush=True); time.sleep(60)"  # fmt: skip


@pytest.fixture
def other(tmp_path, environment):
    """Another process that holds the file."""
    process = Popen([sys.executable, "-c", HOLDS, str(tmp_path / "x.lock")], env=environment, stdout=PIPE, text=True)
    assert process.stdout.readline() == "True\n"
    yield process
    process.kill()
    process.communicate()


def test_what_another_process_holds_is_refused_with_its_name(tmp_path, other):
    with hold(tmp_path / "x.lock", patience=0.2) as mine:
        assert not mine
    assert f"process {other.pid} on " in holder(tmp_path / "x.lock")


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_however_a_process_ends_it_holds_nothing_any_more(tmp_path, other, end):
    other.send_signal(end)
    other.wait()
    assert holder(tmp_path / "x.lock") is None
    with hold(tmp_path / "x.lock") as mine:
        assert mine
        assert f"process {os.getpid()} on " in (tmp_path / "x.lock").read_text()


def test_a_file_that_is_let_go_of_leaves_nothing_behind(tmp_path):
    with hold(tmp_path / "a/x.lock"):
        pass
    assert holder(tmp_path / "a/x.lock") is None
    assert list((tmp_path / "a").iterdir()) == []


def test_the_name_of_a_slurm_job_is_in_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    with hold(tmp_path / "x.lock"):
        assert ", SLURM job 17, since 20" in (tmp_path / "x.lock").read_text()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    says = r"cannot write x.lock in .*Not a directory"
    with pytest.raises(ResultsError, match=says), hold(tmp_path / "file/a/x.lock"):
        pass


# ---- sweeps ----------------------------------------------------------------------------------------------------------

SWEEP = ("-m", "model.hidden=[64,64]", "train.epochs=40", "train.checkpoints=4", "replicas=1")


def sweep(folder, environment, *words):
    places = (f"outputs={folder / 'outputs'}", f"results={folder / 'results'}")
    command = [sys.executable, "-m", "experiments.run", *SWEEP, *words, *places]
    return Popen(command, cwd=folder, env=environment, stdout=PIPE, stderr=PIPE, text=True)


def started(folder, count=1):
    """Wait until so many groups are in training."""
    until = time.monotonic() + 60
    while len(list(folder.glob("outputs/run/groups/*.lock"))) < count:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_two_sweeps_at_once_train_each_run_once_and_both_end_with_all_of_them(tmp_path, environment):
    folders = [tmp_path / name for name in ("both", "alone")]
    for folder in folders:
        folder.mkdir()
    processes = [sweep(folders[0], environment, "seed=0,1,2"), sweep(folders[0], environment, "seed=0,1,2,3")]
    outcomes = [(*process.communicate(), process.returncode) for process in processes]
    assert [code for *_, code in outcomes] == [0, 0], outcomes
    last = sweep(folders[0], environment, "seed=0,1,2,3")
    assert "4 runs at scale cpu, 0 to train" in last.communicate()[0]
    alone = sweep(folders[1], environment, "seed=0,1,2,3")
    assert alone.communicate()[1] == ""
    assert tables(folders[0]) == tables(folders[1])
    assert list(folders[0].glob("outputs/run/groups/*.[!j]*")) == []  # no checkpoint, no lock


def test_a_sweep_waits_for_a_group_of_another_one_and_takes_it_over_when_that_is_killed(tmp_path, environment):
    first = sweep(tmp_path, environment, "train.epochs=4000", "seed=0")
    started(tmp_path)
    (lock,) = tmp_path.glob("outputs/run/groups/*.lock")
    second = sweep(tmp_path, environment, "train.epochs=4000", "seed=0")
    while "is in training elsewhere" not in (line := second.stdout.readline()):
        assert line
    assert lock.stem in line
    assert f"process {first.pid} on" in line
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    until = time.monotonic() + 30
    while not (lock.exists() and f"process {second.pid} on" in lock.read_text()):
        assert time.monotonic() < until
        time.sleep(0.05)
    second.terminate()  # a checkpoint is left
    second.communicate()
    assert second.returncode == 128 + signal.SIGTERM
    assert lock.with_suffix(".pt").exists()
    assert not lock.exists()


def test_a_run_that_is_in_training_is_refused_in_one_line(tmp_path, environment):
    words = ("model.hidden=[64,64]", "train.epochs=4000", f"outputs={tmp_path / 'outputs'}")
    command = [sys.executable, "-m", "experiments.run", *words]
    first = Popen(command, env=environment, stdout=PIPE, stderr=PIPE, text=True)
    started(tmp_path)
    second = subprocess.run(command, env=environment, capture_output=True, text=True)
    first.kill()
    first.communicate()
    assert second.returncode == 2
    assert second.stderr.count("\n") == 1
    assert f"is in training already (process {first.pid} on" in second.stderr
