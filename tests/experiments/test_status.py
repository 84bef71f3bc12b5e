"""`make status` says what is done, running, failed and missing, and how long the rest takes."""

import json
import types

import pytest
from hydra import compose, initialize_config_dir

from experiments.engine import experiment
from experiments.engine.config import Run, identity
from experiments.engine.expand import Group
from experiments.engine.experiment import SOURCES, Experiment
from experiments.engine.progress import done_and_taken, status
from experiments.engine.store import Progress, RunStore
from experiments.status import main
from tests.experiments.conftest import CONFIGS, experiment_of


@pytest.fixture
def runs(composed):
    """Four runs: two kinds, of two seeds."""
    kinds = [(optim, seed) for optim in ("sgd", "adam") for seed in (0, 1)]
    return [Run(config=identity(composed(f"optim={optim}", f"seed={seed}"))) for optim, seed in kinds]


def finish(folder, run, status="done", seconds=3600.0, **more):
    place = folder / "runs" / run.id
    place.mkdir(parents=True)
    (place / "run.json").write_text(json.dumps({"status": status, "seconds": seconds, **more}))
    (place / "done").touch()


def test_what_has_not_begun_is_missing_and_takes_nobody_knows_how_long(runs, tmp_path):
    found = status(experiment_of(runs, tmp_path))
    assert (found.total, found.done, found.running, found.failed, found.missing) == (4, 0, 0, 0, 4)
    assert found.left == "?"


def test_the_hours_left_are_those_of_finished_runs_of_the_same_kind(runs, tmp_path):
    finish(tmp_path, runs[0], seconds=7200.0)
    found = status(experiment_of(runs, tmp_path))
    assert (found.done, found.missing, found.left) == (1, 3, "2.0+ ?")
    finish(tmp_path, runs[2], seconds=1800.0, status="nan")
    found = status(experiment_of(runs, tmp_path))
    assert (found.done, found.missing, found.left) == (2, 2, "2.5")


def test_a_failed_run_says_why_and_is_still_to_do(runs, tmp_path):
    finish(tmp_path, runs[0])
    finish(tmp_path, runs[1], status="failed", seconds=1.0, error="no room")
    found = status(experiment_of(runs, tmp_path))
    assert (found.done, found.failed, found.missing) == (1, 1, 2)
    assert found.errors == {runs[1].id: "no room"}
    assert found.left == "1.0+ ?"


@pytest.mark.parametrize("alone", [True, False])
def test_a_group_in_training_counts_with_what_is_left_of_it(runs, tmp_path, alone):
    finish(tmp_path, runs[0])
    group = Group(runs=[runs[1]] if alone else [runs[1], runs[0]])
    store = RunStore(tmp_path)
    with store.hold(group.id):
        if not alone:
            store.save([group])
        store.come_to(group.id, Progress(75, 100, 0))
        found = status(experiment_of(runs, tmp_path))
        assert (found.done, found.running, found.missing, found.left) == (1, 1, 2, "0.2+ ?")
        assert f"{group.id}: {len(group.runs)} runs, step 75 of 100, process " in found.training[0]
    found = status(experiment_of(runs, tmp_path))  # control: it trains no more
    assert (found.running, found.missing, found.training) == (0, 3, [])


def test_the_pace_of_what_trains_tells_the_hours_of_its_kind_before_any_of_it_has_finished(runs, tmp_path):
    group = Group(runs=[runs[1], runs[0]])
    store = RunStore(tmp_path)
    with store.hold(group.id):
        store.save([group])
        store.come_to(group.id, Progress(25, 100, 3600))  # two runs that take four hours together
        found = status(experiment_of(runs, tmp_path))
    assert (found.running, found.missing, found.left) == (2, 2, "3.0+ ?")


def test_committed_tables_say_how_long_a_run_takes_on_a_machine_that_has_none(tmp_path, command):
    words = ("-m", "experiment=fig4", "scale=smoke", "train.steps=20", "seeds=1", "regularizer=vanilla")
    assert command(*words, f"outputs={tmp_path / 'outputs'}", f"results={tmp_path}").code == 0
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        runs = Experiment.load("fig4", ["scale=smoke", "train.steps=20", "seeds=1", "regularizer=vanilla"]).runs
    RunStore(tmp_path / "outputs/fig4").collect(tmp_path / "results/fig4", "smoke", [run.id for run in runs])
    found = status(experiment_of(runs, tmp_path / "nothing/fig4", tmp_path / "results"))
    assert (found.done, found.missing, found.tabled) == (0, len(runs), len(runs))
    assert found.unknown == 0
    assert found.seconds > 0
    assert found.new_seconds == 0  # a sweep that adopts them has nothing to train
    more = [*runs, Run(config=runs[0].config | {"seed": 99})]
    found = status(experiment_of(more, tmp_path / "nothing/fig4", tmp_path / "results"))
    assert 0 < found.new_seconds < found.seconds


def test_the_command_shows_every_experiment_and_refuses_one_that_is_not_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fig4", "fig5", "--scale", "smoke"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown] == ["scale", "fig4", "fig5"]
    assert shown[1].split()[1:6] == ["420", "0", "0", "0", "420"]
    given = ("regularizer.sigma=0.03", "seed=0,1")  # of those that have a sigma, as the sweep takes it
    assert main(["fig4", "--scale", "smoke", "--set", *given]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[1] == "172"
    assert main(["fig99"]) == 2
    assert capsys.readouterr().err.startswith("error: no experiment fig99; there are ant, ")
    assert main(["fig4", "--set", "optim.lrr=1"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_progress_counts_runs_in_training_as_fractions(tmp_path):
    runs = [types.SimpleNamespace(id=name) for name in "abcd"]
    groups = [types.SimpleNamespace(id="one", runs=runs[1:3]), types.SimpleNamespace(id="two", runs=runs[3:])]
    whole = experiment_of(runs, tmp_path)
    assert done_and_taken(whole, groups) == (0, 0)
    (tmp_path / "runs/a").mkdir(parents=True)
    (tmp_path / "runs/a/done").touch()
    (tmp_path / "groups").mkdir()
    (tmp_path / "groups/one.step").write_text("25 100 7")
    (tmp_path / "groups/two.step").write_text("")  # just being written
    (tmp_path / "groups/other.step").write_text("25 100 7")  # of another sweep
    assert done_and_taken(whole, groups) == (1.5, 50)


def test_composed_runs_are_kept_until_a_configuration_changes(monkeypatch, tmp_path):
    composed = []
    monkeypatch.setattr("experiments.engine.experiment.COMPOSED", tmp_path / "kept")
    monkeypatch.setattr(
        "experiments.engine.experiment.compose", lambda *words: composed.append(words) or compose(*words)
    )

    def again(*words):
        composed.clear()
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            made = Experiment.load("fig14", ["scale=smoke", *words])
        return made.store, made.config.replicas, list(made.words), [run.id for run in made.runs]

    first = again()
    assert composed
    assert again() == first
    assert not composed
    assert again("seed=7")[3] != first[3]
    assert composed
    for file in (tmp_path / "kept").iterdir():
        file.write_text("{")
    assert again() == first
    assert composed
    changed = tmp_path / "changed.yaml"
    changed.write_text("a: 1")
    monkeypatch.setattr(experiment, "SOURCES", [*SOURCES, changed])
    assert again() == first
    assert composed
    assert again() == first
    assert not composed
    changed.write_text("a: 2")
    assert again() == first
    assert composed
