"""What lies in outputs/<experiment>: the store adopts committed tables, and collected again they are the same."""

import re

import pytest
import torch

from experiments.analysis.results import ResultsError, read_table
from experiments.engine import training
from experiments.engine.config import Run, identity
from experiments.engine.expand import Group
from experiments.engine.experiment import Experiment
from experiments.engine.store import REMAINS, RunStore, read_notes
from tests.experiments.conftest import experiment_of

FACTS = {"git_sha": "abc123", "dirty": False, "device": "cpu", "threads": 1, "versions": {"torch": "2.15.0+cpu"}}
RECORDS = [(0, "test", "loss", 2.30258509), (5, "train", "loss", float("nan")), (10, "test", "loss", 1.5e-7)]


@pytest.fixture
def runs(composed):
    return [Run(config=identity(composed("regularizer=syre", f"seed={seed}"))) for seed in range(4)]


@pytest.fixture
def committed(tmp_path, runs):
    """The experiment of three runs that have ended elsewhere, the last one badly, and are in the tables of results/."""
    there = experiment_of(runs[:3], tmp_path / "there/fig0", tmp_path / "results")
    for run, status in zip(there.runs, ("done", "nan", "failed"), strict=True):
        there.store.write(run, RECORDS if status != "failed" else [], {"status": status, "seconds": 12.3456, **FACTS})
    there.collect(there.runs, tmp_path / "results")
    return there


def tables(folder):
    return {name: (folder / name).read_bytes() for name in ("runs.csv", "metrics.csv")}


def test_what_is_adopted_and_collected_again_is_the_same_to_the_last_byte(tmp_path, committed, runs):
    here = experiment_of(runs, tmp_path / "here/fig0", tmp_path / "results")
    assert here.missing() == runs
    assert here.store.adopt(tmp_path / "results/fig0", runs) == 2
    assert here.missing() == runs[2:]  # one has failed, and is tried again; one is new
    assert here.store.adopt(tmp_path / "results/fig0", runs) == 0
    again = here.collect(runs[:2], tmp_path / "again")
    control = committed.collect(runs[:2], tmp_path / "control")
    assert tables(again) == tables(control)
    assert tables(again)["metrics.csv"] == tables(tmp_path / "results/fig0")["metrics.csv"]
    for run in runs[:2]:
        ours, theirs = here.store.facts(run.id), committed.store.facts(run.id)
        assert {**ours, "seconds": round(theirs["seconds"], 3)} == {**theirs, "seconds": ours["seconds"]}


def test_a_run_that_has_ended_here_stays(tmp_path, committed, runs):
    store = RunStore(tmp_path / "here")
    store.write(runs[0], RECORDS[:1], {"status": "done", "seconds": 1.0, **FACTS})
    assert store.adopt(tmp_path / "results/fig0", runs) == 1
    assert store.facts(runs[0].id)["seconds"] == 1.0


def test_a_part_of_the_runs_is_not_collected_over_others_that_the_tables_have(tmp_path, committed, runs):
    here, before = experiment_of(runs, tmp_path / "here/fig0", tmp_path / "results"), tables(tmp_path / "results/fig0")
    here.store.write(runs[3], RECORDS, {"status": "done", "seconds": 1.0, **FACTS})
    with pytest.raises(ResultsError, match=r"runs.csv has 2 runs that have not ended here, \w{12} first: adopt=true"):
        here.collect(runs[3:], tmp_path / "results")
    assert tables(tmp_path / "results/fig0") == before
    here.store.adopt(tmp_path / "results/fig0", runs)
    here.collect([run for run in runs if here.store.ended(run.id)], tmp_path / "results")
    rows = read_table(tmp_path / "results/fig0/runs.csv")
    assert {row["id"] for row in rows} == {runs[k].id for k in (0, 1, 3)}


def test_of_tables_that_are_damaged_nothing_is_adopted(tmp_path, committed, runs):
    file = tmp_path / "results/fig0/metrics.csv"
    file.write_text(file.read_text().replace("1.5e-07", "little"))
    with pytest.raises(ResultsError, match=re.escape(str(file))):
        RunStore(tmp_path / "here").adopt(file.parent, runs)
    assert not (tmp_path / "here").exists()


def test_the_id_of_a_run_follows_from_what_it_has_left(tmp_path, runs):
    import yaml

    store = RunStore(tmp_path)
    store.write(runs[0], RECORDS, {"status": "done", "seconds": 1.0, **FACTS})
    config = yaml.safe_load((store.run(runs[0].id) / "config.yaml").read_text())
    assert Run(config=config).id == runs[0].id


def test_a_sweep_that_adopts_trains_only_what_is_new(tmp_path, command):
    words = ("-m", "experiment=fig4", "scale=smoke", "regularizer=vanilla", "train.steps=3", "wandb.mode=disabled")
    first = command(*words, f"outputs={tmp_path / 'first'}", "seeds=1")
    assert first.code == 0, first.err
    tabled = tmp_path / "first/fig4/results-custom"
    known = len(read_table(tabled / "fig4/runs.csv"))
    places = (f"outputs={tmp_path / 'second'}", f"results={tabled}", "seeds=2")
    second = command(*words, *places, "adopt=true")
    assert f"{known} runs adopted from the tables in" in second.out
    assert f"{2 * known} runs at scale smoke, {known} to train" in second.out
    old, new = (read_table(folder / "fig4/runs.csv") for folder in (tabled, tmp_path / "second/fig4/results-custom"))
    assert [row for row in new if row["seed"] == "0"] == old
    third = command(*words, f"outputs={tmp_path / 'third'}", f"results={tabled}", "seeds=2")  # control
    assert f"{2 * known} to train" in third.out


def test_what_has_ended_of_a_sweep_is_collected_without_training_the_rest(tmp_path, command):
    words = ("-m", "model.hidden=[4]", "train.epochs=1", "replicas=1", "wandb.mode=disabled", f"outputs={tmp_path}")
    assert command(*words, "seed=0").code == 0
    done = command(*words, "seed=0,1,2", "train_nothing=true")
    assert (done.code, "3 runs at scale cpu, 0 to train" in done.out) == (0, True), done.err
    assert [row["seed"] for row in read_table(tmp_path / "run/results-custom/run/runs.csv")] == ["0"]


def test_what_a_killed_process_has_left_of_runs_that_have_ended_is_removed(tmp_path, runs):
    """Killed between a run's `done` and the removal of its checkpoint: nobody came back to it."""
    store, (ended, failed, held, going) = RunStore(tmp_path / "fig0"), [Group(runs=[run]) for run in runs]
    for group, status in ((ended, "done"), (failed, "failed"), (held, "nan")):
        store.write(group.runs[0], RECORDS, {"status": status, "seconds": 1.0, **FACTS})
    groups = [ended, failed, held, going]
    store.save(groups)
    for group in groups:
        for suffix in REMAINS:
            store.file(group.id, suffix).write_text("")
    with store.hold(held.id):
        store.tidy()
    left = {path.stem for path in (tmp_path / "fig0/groups").iterdir() if path.suffix in REMAINS}
    assert left == {failed.id, held.id, going.id}
    assert all(store.file(group.id).exists() for group in groups)


def test_the_store_of_an_experiment_is_the_folder_of_its_name(tmp_path, runs):
    assert isinstance(experiment_of(runs, tmp_path / "fig0"), Experiment)
    assert experiment_of(runs, tmp_path / "fig0").store == RunStore(tmp_path / "fig0")


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe"], ids=repr)
def test_notes_that_are_damaged_are_set_aside_with_one_line(tmp_path, capsys, content):
    file = tmp_path / "notes.json"
    assert read_notes(file, "nothing is known") == {}
    assert capsys.readouterr().err == ""
    file.write_bytes(content)
    assert read_notes(file, "nothing is known") == {}
    said = rf"{file} is damaged \(.+\): it is now notes.json.damaged, and nothing is known\n"
    assert re.fullmatch(said, capsys.readouterr().err)
    assert (tmp_path / "notes.json.damaged").read_bytes() == content
    file.write_text('{"a": 1}')  # control
    assert read_notes(file, "nothing is known") == {"a": 1}


@pytest.mark.parametrize(
    ("last", "status"),
    [
        ({"train/loss": 1.0, "train/kl": float("inf"), "test/return": 900.0}, "done"),  # PPO's, over 10 million steps
        ({"train/loss": float("nan"), "train/kl": 0.1}, "nan"),
        ({"train/loss": 1.0, "test/loss": float("inf")}, "nan"),
        ({"test/floor": float("nan")}, "nan"),  # of a task that only measures
        ({"test/floor": 0.1}, "done"),
        ({}, "nan"),
    ],
    ids=str,
)
def test_a_run_is_nan_by_its_losses_or_where_it_has_none_by_any_number(tmp_path, runs, last, status):
    log = training._Log(group=Group(runs=runs[:1]), store=RunStore(tmp_path), device=torch.device("cpu"))
    log.rows = [(10, *name.split("/"), [value]) for name, value in last.items()]
    training._write(log, error=None)
    assert log.store.facts(runs[0].id)["status"] == status
