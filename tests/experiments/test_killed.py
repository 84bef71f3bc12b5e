"""What a killed process, or one that another runs beside, leaves: nothing half, for ever, or believed wrongly."""

import csv
import errno
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from types import SimpleNamespace

import pytest
import torch

from experiments.analysis import report, results
from experiments.analysis.locks import hold
from experiments.analysis.results import Row, load, read_table, write_files
from experiments.engine.config import Run, identity
from experiments.engine.expand import Group
from experiments.engine.store import RunStore
from scripts import gpu_queue
from tests.experiments.conftest import experiment_of
from tests.experiments.test_report import results as figures  # noqa: F401

FACTS = {"git_sha": "abc123", "dirty": False, "device": "cpu", "threads": 1, "versions": {"torch": "2.15.0+cpu"}}
ENDED = {"status": "done", "seconds": 1.0, **FACTS}
RECORDS = [(0, "test", "loss", 2.5), (10, "test", "loss", 1.5)]
KILLED = """
import os, signal, sys
from pathlib import Path
from experiments.analysis import results
at, replace, count = int(sys.argv[1]), os.replace, iter(range(100))
def counted(*files):
    if next(count) == at:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*files)
os.replace = counted
"""
WRITES = "results.write_files({Path(name): b'whole' for name in sys.argv[2:]})"


def kill(code, at, *words):
    """Run code in a process of its own, which is killed when it is to give a file its name, after so many others."""
    done = subprocess.run([sys.executable, "-c", KILLED + code, str(at), *map(str, words)])
    assert done.returncode == -signal.SIGKILL


def age(path, hours=2):
    os.utime(path, (time.time() - 3600 * hours,) * 2)


@pytest.fixture
def runs(composed):
    return [Run(config=identity(composed("regularizer=syre", f"seed={seed}"))) for seed in range(4)]


# ---- files -----------------------------------------------------------------------------------------------------------


def test_what_was_begun_over_an_hour_ago_goes_when_the_file_is_written_and_what_is_younger_stays(tmp_path):
    file, other = tmp_path / "a[1].csv", tmp_path / "b.csv"
    kill(WRITES, 0, file)
    (young,) = tmp_path.iterdir()
    old = tmp_path / results.temporary(file.name, "0123abcd")
    of_another = tmp_path / results.temporary(other.name, "0123abcd")
    for path in (old, of_another):
        path.write_bytes(b"")
        age(path)
    write_files({file: b"new"})
    assert {*tmp_path.iterdir()} == {file, young, of_another}


def test_git_sees_nothing_of_what_killed_processes_leave(tmp_path):
    root = results.CONFIGS.parent
    names = [".README.md.0123abcd.tmp", "results/.fig4.lock", "results/.drawn.lock", "results/fig4/.runs.csv.01.tmp"]
    said = subprocess.run(["git", "check-ignore", *names], cwd=root, capture_output=True, text=True)
    if said.returncode == 128:
        pytest.skip("this is no checkout")
    assert said.stdout.split() == names


# ---- groups and runs -------------------------------------------------------------------------------------------------


def begun(store):
    return sorted(path.name.split(".")[1] for path in (store.folder / "groups").glob(".*"))


def test_a_checkpoint_that_its_process_was_killed_in_the_middle_of_goes_when_its_group_is_taken_up(tmp_path, runs):
    store, (killed, other) = RunStore(tmp_path / "fig0"), [Group(runs=[run]) for run in runs[:2]]
    store.save([killed, other])
    for group in (killed, other):
        store.checkpoint(group.id).write_bytes(b"the one before")
        kill(WRITES, 0, store.checkpoint(group.id))
    assert begun(store) == sorted([killed.id, other.id])
    with store.hold(killed.id), store.hold(killed.id) as again:  # the second is not ours, and touches nothing
        assert (again, begun(store)) == (False, [other.id])
    assert {store.checkpoint(g.id).read_bytes() for g in (killed, other)} == {b"the one before"}
    with hold(store.file(other.id, ".lock")) as ours, store.hold(other.id) as second:  # who holds it may be writing
        assert (ours, second, begun(store)) == (True, False, [other.id])


def test_what_killed_processes_had_begun_is_removed_once_the_runs_have_ended(tmp_path, runs):
    """Of four groups one has ended, one has failed, one is going on, and one trained alone and is not written down."""
    store, (ended, failed, going, alone) = RunStore(tmp_path / "fig0"), [Group(runs=[run]) for run in runs]
    store.save([ended, failed, going])
    for group, status in ((ended, "done"), (failed, "failed"), (going, None), (alone, "done")):
        store.checkpoint(group.id).parent.mkdir(parents=True, exist_ok=True)
        kill(WRITES, 0, store.checkpoint(group.id), *store.files(group.runs[0].id))
        assert len(list(store.run(group.runs[0].id).iterdir())) == 4
        if status:
            store.write(group.runs[0], RECORDS, ENDED | {"status": status})
    store.tidy()
    assert begun(store) == sorted([failed.id, going.id, alone.id])
    store.tidy(runs)
    assert begun(store) == sorted([failed.id, going.id])
    files = list((store.folder / "runs").glob("*/.*"))
    assert len(files) == 16  # a minute old: another process may be writing them
    for path in files:
        age(path)
    (store.run(going.runs[0].id) / "run.json").write_text("{")  # damaged, and none of this sweep
    store.tidy()
    assert not list((store.folder / "runs").glob("*/.*"))
    assert sorted(store.run(ended.runs[0].id).iterdir()) == sorted(store.files(ended.runs[0].id))


def test_a_run_that_has_ended_while_others_are_adopted_stays_as_it_was_trained(tmp_path, runs, monkeypatch):
    there = experiment_of(runs, tmp_path / "there/fig0", tmp_path / "results")
    for run in runs:
        there.store.write(run, RECORDS, ENDED)
    there.collect(runs, tmp_path / "results")
    store, write = RunStore(tmp_path / "here"), RunStore.write

    def meanwhile(self, run, records, facts):
        if run == runs[0]:
            write(self, runs[2], RECORDS, {**ENDED, "seconds": 99.0, "group": "0123456789ab"})
        write(self, run, records, facts)

    monkeypatch.setattr(RunStore, "write", meanwhile)
    store.adopt(tmp_path / "results/fig0", runs)
    assert [store.adopted(run.id) for run in runs] == [True, True, False, True]
    assert store.facts(runs[2].id)["seconds"] == 99.0


# ---- tables ----------------------------------------------------------------------------------------------------------

COLLECTS = """
import json
results.collect(Path(sys.argv[2]), "cpu", json.loads(sys.argv[3]))
"""


def table(ids, value, origin) -> dict[str, tuple[Row, list[Row]]]:
    facts = {"scale": "cpu", "status": "done", "seed": "0", "git_sha": origin, "dirty": "false", "device": origin}
    facts |= {"threads": "1", "seconds": "1.000"}
    record = {"step": "1", "split": "test", "metric": "loss", "value": str(value)}
    return {id: ({"id": id, **facts}, [{"id": id, **record}]) for id in ids}


def test_after_a_kill_between_the_tables_no_number_has_a_provenance_that_is_not_its_own(tmp_path):
    ids, folder = ["0" * 11 + str(k) for k in range(3)], tmp_path / "fig0"
    results.collect(folder, "cpu", table(ids, 0.5, "old"))
    new = table(ids, 0.7, "new")
    kill(COLLECTS, 1, folder, json.dumps(new))
    assert len(list(folder.glob(".*.tmp"))) == 1  # of the second
    results.collect(folder, "cpu", new)
    assert {row["device"] for row in read_table(folder / "runs.csv")} == {"new"}
    assert {row["value"] for row in read_table(folder / "metrics.csv")} == {"0.7"}


def test_after_a_kill_between_the_tables_a_new_run_without_records_is_neither_drawn_nor_adopted(tmp_path, runs):
    ids, folder = [run.id for run in runs], tmp_path / "fig0"
    results.collect(folder, "cpu", table(ids[:3], 0.5, "old"))
    kill(COLLECTS, 1, folder, json.dumps(table(ids, 0.5, "old")))
    with pytest.raises(results.ResultsError, match="do not match each other: `make fig0` collects them again"):
        load(tmp_path, "fig0")
    store = RunStore(tmp_path / "outputs/fig0")
    assert store.adopt(folder, runs) == 3
    assert not store.finished(ids[3])


def test_two_that_collect_different_scales_keep_the_rows_of_both(tmp_path, runs, monkeypatch):
    """The queue for GPUs reads the tables; before it writes, a sweep at another scale wants to write its own."""
    cpu, paper = (
        experiment_of(
            [Run(config=run.config | {"scale": scale}) for run in some], tmp_path / "fig0", tmp_path / "results"
        )
        for scale, some in (("cpu", runs[:2]), ("paper", runs[2:]))
    )
    for experiment in (cpu, paper):
        for run in experiment.runs:
            experiment.store.write(run, RECORDS, ENDED)
    paper.config.scale = "paper"

    def sweep():
        with cpu.sole():
            cpu.collect(cpu.runs)

    write, other = results.write_files, threading.Thread(target=sweep)

    def slowly(files):
        if other.ident is None:
            other.start()
            other.join(timeout=0.5)  # it waits for us; without a lock it would be done
        write(files)

    monkeypatch.setattr(results, "write_files", slowly)
    gpu_queue.collect(paper)
    other.join()
    rows = read_table(tmp_path / "results/fig0/runs.csv")
    assert sorted(row["scale"] for row in rows) == ["cpu", "cpu", "paper", "paper"]


# ---- reports ---------------------------------------------------------------------------------------------------------


def verdict(folder, figure="synth2", claim="C1"):
    rows = csv.DictReader(io.StringIO((folder / "claims.csv").read_text()))
    return next(row["verdict"] for row in rows if (row["figure"], row["id"]) == (figure, claim))


def other_way(folder):
    """The tables of synth2 as another sweep writes them: syre and decay have each other's ranks."""
    metrics = (folder / "synth2/metrics.csv").read_text()
    text = "\n".join(
        ",".join([*line.split(",")[:4], str(130 - float(line.split(",")[4]))]) if ",rank," in line else line
        for line in metrics.splitlines()
    )
    (folder / "synth2/metrics.csv").write_text(f"{text}\n")


def test_tables_that_a_sweep_writes_while_the_old_ones_are_drawn_are_drawn_the_next_time(figures, monkeypatch):  # noqa: F811
    make = report._in_parallel

    def meanwhile(*arguments):
        made = make(*arguments)
        other_way(figures)
        return made

    monkeypatch.setattr(report, "_in_parallel", meanwhile)
    report.show([], figures)
    assert verdict(figures) == "reproduced"  # of the tables as they were
    monkeypatch.setattr(report, "_in_parallel", make)
    report.show([], figures)
    assert verdict(figures) == "not reproduced"


def test_two_that_draw_wait_for_each_other_and_the_second_knows_what_the_first_has_done(figures, monkeypatch):  # noqa: F811
    begun, waited, drawn = threading.Event(), [], []
    make = report._make

    def slowly(name, folder, draw):
        begun.set()
        drawn.append(name)
        time.sleep(0.3)
        return make(name, folder, draw)

    monkeypatch.setattr(report, "_make", slowly)
    monkeypatch.setattr(report, "_in_parallel", lambda call, arguments: [call(*each) for each in arguments])

    def second():
        begun.wait()
        report.show([], figures)
        waited.append(time.monotonic())

    other = threading.Thread(target=second)
    other.start()
    report.show([], figures)
    first = time.monotonic()
    other.join()
    assert sorted(drawn) == ["synth10", "synth2"]  # each once
    assert waited[0] > first
    assert not (figures / ".drawn.lock").exists()


def test_a_readme_that_could_not_be_written_is_written_the_next_time(figures, monkeypatch):  # noqa: F811
    readme = figures.parent / "README.md"
    empty = "<!-- figures -->\n<!-- /figures -->\n"
    readme.write_text(empty)
    replace = os.replace

    def full(source, target):
        if str(target) == str(readme):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(results.ResultsError, match="No space left"):
        report.show([], figures)
    assert readme.read_text() == empty
    monkeypatch.setattr(os, "replace", replace)
    report.show([], figures)
    assert "a synthetic figure" in readme.read_text()


def test_results_that_are_not_there_are_not_made(tmp_path, figures):  # noqa: F811
    with pytest.raises(results.ResultsError, match="no results for synth2"):
        report.show(["synth2"], tmp_path / "none")
    assert not (tmp_path / "none").exists()


FORKS = r"""
import os, time
from experiments.analysis import report
def work(n):
    os.write(1, b"%d\n" % os.getpid())  # print may write a line and its end apart
    time.sleep(n)
report._in_parallel(work, [(600,), (600,)])
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="on one core nothing is forked")
def test_processes_that_draw_end_with_the_command_that_is_killed():
    with subprocess.Popen([sys.executable, "-c", FORKS], stdout=subprocess.PIPE, text=True) as command:
        workers = [int(command.stdout.readline()) for _ in range(2)]
        command.kill()
    until = time.monotonic() + 20
    while alive := [pid for pid in workers if os.path.exists(f"/proc/{pid}") and state(pid) != "Z"]:
        assert time.monotonic() < until, alive
        time.sleep(0.05)


def state(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


# ---- bundles ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def bundled(tmp_path, runs):
    """An experiment of which two runs have ended and one group trains, and a bundle of it."""
    experiment = experiment_of(runs[:3], tmp_path / "here/fig0", tmp_path / "results")
    for run in runs[:2]:
        experiment.store.write(run, RECORDS, ENDED)
    going = Group(runs=[runs[2]])
    experiment.store.save([going])
    experiment.store.checkpoint(going.id).write_bytes(checkpoint(5))
    gpu_queue.give(tmp_path / "bundle", [experiment], tmp_path / "here")
    return SimpleNamespace(experiment=experiment, group=going, folder=tmp_path / "bundle", outputs=tmp_path / "here")


def checkpoint(step):
    torch.save({"state": {"step": step}}, buffer := io.BytesIO())
    return buffer.getvalue()


def members(folder):
    with tarfile.open(fileobj=io.BytesIO(b"".join(p.read_bytes() for p in sorted(folder.iterdir())))) as tar:
        return {member.name: member.size for member in tar}


def test_the_bundle_of_the_slice_before_stays_until_there_is_another(bundled, monkeypatch):
    before = members(bundled.folder)
    assert len(before) == 4 * 2 + 2
    bundled.experiment.store.write(bundled.group.runs[0], RECORDS, ENDED)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(results.ResultsError, match="No space left"):
            gpu_queue.give(bundled.folder, [bundled.experiment], bundled.outputs)
    assert members(bundled.folder) == before
    (bundled.folder / results.temporary(f"{gpu_queue.BUNDLE}.0", "0123abcd")).write_bytes(b"of a slice that was killed")
    (bundled.folder / f"{gpu_queue.BUNDLE}.1").write_bytes(b"of a larger one")
    gpu_queue.give(bundled.folder, [bundled.experiment], bundled.outputs)
    assert [path.name for path in bundled.folder.iterdir()] == [f"{gpu_queue.BUNDLE}.0"]


def test_a_group_that_trains_while_a_bundle_is_made_is_packed_whole_or_not_at_all(bundled, monkeypatch):
    file, whole = bundled.experiment.store.checkpoint(bundled.group.id), len(checkpoint(5))
    size = gpu_queue._size

    def meanwhile(path):
        if path == file:
            with file.open("ab") as longer:
                longer.write(b"more")
        return size(path)

    monkeypatch.setattr(gpu_queue, "_size", meanwhile)
    gpu_queue.give(bundled.folder, [bundled.experiment], bundled.outputs)
    name = f"fig0/groups/{file.name}"
    assert members(bundled.folder)[name] == file.stat().st_size > whole

    def ended(path):
        found = size(path)
        bundled.experiment.store.discard(bundled.group.id)
        return found

    monkeypatch.setattr(gpu_queue, "_size", ended)
    gpu_queue.give(bundled.folder, [bundled.experiment], bundled.outputs)
    assert name not in members(bundled.folder)


def test_a_checkpoint_in_training_here_is_not_replaced_by_that_of_a_bundle(bundled, tmp_path):
    there = RunStore(tmp_path / "there/fig0")
    there.save([bundled.group])
    own = there.checkpoint(bundled.group.id)
    own.write_bytes(checkpoint(3))
    with there.hold(bundled.group.id):
        gpu_queue.take(bundled.folder, tmp_path / "there")
        assert own.read_bytes() == checkpoint(3)
    gpu_queue.take(bundled.folder, tmp_path / "there")  # the control
    assert own.read_bytes() == checkpoint(5)


# ---- SLURM -----------------------------------------------------------------------------------------------------------


def test_an_array_that_another_command_submits_meanwhile_is_not_taken_for_ended(tmp_path, monkeypatch):
    slurm = pytest.importorskip("experiments.engine.hydra_plugins.slurm")
    mine, other = (tmp_path / slurm.ARRAY.replace("*", name) for name in ("7", "8"))
    mine.write_text('{"7_0": ["group=a"]}')

    def states():
        other.write_text('{"8_0": ["group=b"]}')
        return {"9_0": "RUNNING"}

    monkeypatch.setattr(slurm, "_states", states)
    assert slurm.Slurm._queued(SimpleNamespace(folder=tmp_path), [["group=b"]]) == {}
    assert (mine.exists(), other.exists()) == (False, True)
