"""`make status` says what is committed, trained here and still to train, and how long that takes."""

import json
import types

import pytest
from hydra import compose, initialize_config_dir

from experiments.engine import experiment
from experiments.engine.config import Run, identity
from experiments.engine.expand import Group
from experiments.engine.experiment import SOURCES, Experiment
from experiments.engine.progress import Status, done_and_taken, status
from experiments.engine.store import Progress, RunStore
from experiments.status import in_words, main
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


def test_what_has_not_begun_is_to_train_and_takes_nobody_knows_how_long(runs, tmp_path):
    found = status(experiment_of(runs, tmp_path))
    assert (found.total, found.done, found.running, found.failed, found.to_train) == (4, 0, 0, 0, 4)
    assert found.left == "?"


def test_the_hours_left_are_those_of_finished_runs_of_the_same_kind(runs, tmp_path):
    finish(tmp_path, runs[0], seconds=7200.0)
    found = status(experiment_of(runs, tmp_path))
    assert (found.done, found.to_train, found.left) == (1, 3, "2.0+ ?")
    finish(tmp_path, runs[2], seconds=1800.0, status="nan")
    found = status(experiment_of(runs, tmp_path))
    assert (found.done, found.to_train, found.left) == (2, 2, "2.5")


def test_a_failed_run_says_why_and_is_still_to_do(runs, tmp_path):
    finish(tmp_path, runs[0])
    finish(tmp_path, runs[1], status="failed", seconds=1.0, error="no room")
    found = status(experiment_of(runs, tmp_path))
    assert (found.done, found.failed, found.to_train) == (1, 1, 3)
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
        assert (found.done, found.running, found.to_train, found.left) == (1, 1, 2, "0.2+ ?")
        assert f"{group.id}: {len(group.runs)} runs, step 75 of 100, process " in found.training[0]
    found = status(experiment_of(runs, tmp_path))  # control: it trains no more
    assert (found.running, found.to_train, found.training) == (0, 3, [])


def test_the_pace_of_what_trains_tells_the_hours_of_its_kind_before_any_of_it_has_finished(runs, tmp_path):
    group = Group(runs=[runs[1], runs[0]])
    store = RunStore(tmp_path)
    with store.hold(group.id):
        store.save([group])
        store.come_to(group.id, Progress(25, 100, 3600))  # two runs that take four hours together
        found = status(experiment_of(runs, tmp_path))
    assert (found.running, found.to_train, found.left) == (2, 2, "3.0+ ?")


def test_committed_tables_say_how_long_a_run_takes_on_a_machine_that_has_none(tmp_path, command):
    words = ("-m", "experiment=fig4", "scale=smoke", "train.steps=20", "seeds=1", "regularizer=vanilla")
    assert command(*words, f"outputs={tmp_path / 'outputs'}", f"results={tmp_path}").code == 0
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        runs = Experiment.load("fig4", ["scale=smoke", "train.steps=20", "seeds=1", "regularizer=vanilla"]).runs
    RunStore(tmp_path / "outputs/fig4").collect(tmp_path / "results/fig4", "smoke", [run.id for run in runs])
    found = status(experiment_of(runs, tmp_path / "nothing/fig4", tmp_path / "results"))
    assert (found.done, found.to_train, found.tabled, found.new) == (0, len(runs), len(runs), 0)
    assert found.unknown == 0
    assert found.seconds > 0
    assert found.new_seconds == 0  # a sweep that adopts them has nothing to train
    more = [*runs, Run(config=runs[0].config | {"seed": 99})]
    found = status(experiment_of(more, tmp_path / "nothing/fig4", tmp_path / "results"))
    assert 0 < found.new_seconds < found.seconds
    assert found.new == 1


def test_what_it_says_adds_up_and_names_the_command_that_trains_what_it_says(runs, tmp_path):
    """Of four runs one is committed, another has ended here, the third trains and the fourth has failed."""
    table = tmp_path / "results" / tmp_path.name / "runs.csv"
    table.parent.mkdir(parents=True)
    facts = dict.fromkeys(("git_sha", "dirty", "device"), "") | {"threads": "1", "seconds": "7200"}
    row = {"id": runs[0].id, "scale": "cpu", "status": "done", "seed": "0"} | facts
    table.write_text(f"{','.join(row)}\n{','.join(row.values())}\n")
    finish(tmp_path, runs[1])
    finish(tmp_path, runs[3], status="failed", error="no room")
    experiment, group = experiment_of(runs, tmp_path), Group(runs=[runs[2]])
    with RunStore(tmp_path).hold(group.id):
        found = status(experiment)
        said = [line.strip() for line in in_words(experiment, found, ["seeds=7"])]
    assert found.done + found.running + found.to_train == found.total == 4
    assert said[:5] == [
        f"{tmp_path.name} at scale cpu: 4 runs",
        f"committed: 1, in {tmp_path / 'results' / tmp_path.name}, from which `make plots` draws",
        f"trained here: 1, in {tmp_path}",
        "training now: 1",
        "to train: 2, 1 of them again, for they have failed",
    ]
    rest = "hours of one process, with the rest of those in training"
    assert said[5] == f'`make {tmp_path.name} ARGS="seeds=7"` trains these 2, 1.5+ ? {rest}'
    command = f'`make {tmp_path.name} ARGS="adopt=true seeds=7"`'
    assert said[6].startswith(f"{command} takes over what is committed, and trains 1")
    assert said[7].startswith(f"in training: {group.id}: 1 runs, step 0 of 1, process ")
    assert said[8:] == [f"failed: {runs[3].id}, no room"]


def test_where_all_is_committed_the_queue_has_nothing_to_train_and_the_command_has_all(runs, tmp_path):
    found = Status(total=4, tabled=4, seconds=3600.0)
    said = "\n".join(in_words(experiment_of(runs, tmp_path), found))
    assert f"`make {tmp_path.name}` trains these 4, 1.0 hours of one process" in said
    assert 'ARGS="adopt=true"` takes over what is committed, and has nothing to train' in said
    nowhere = "\n".join(in_words(experiment_of(runs, tmp_path), Status(total=4, new=4, new_unknown=4, unknown=4)))
    assert "adopt" not in nowhere  # there is nothing to take over
    assert "trains these 4; how long that takes is not known yet" in nowhere


def test_the_command_shows_every_experiment_in_columns(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("experiments.status.status", lambda experiment: Status(total=12, tabled=7, done=3, running=4))
    assert main([]) == 0
    head, *rows = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert {"fig4", "fig5", "theory"} < {row.split()[0] for row in rows}
    for title, cell in {"runs": 12, "committed": 7, "trained here": 3, "training now": 4, "to train": 5}.items():
        end = head.index(f"  {title}") + len(title) + 2
        assert {row[:end].split()[-1] for row in rows} == {str(cell)}


def test_the_command_says_of_one_what_there_is_and_refuses_one_that_is_not_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fig4", "fig5", "--scale", "smoke"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line for line in shown if not line.startswith(" ")] == [
        "fig4 at scale smoke: 420 runs",
        "fig5 at scale smoke: 53 runs",
    ]
    assert "  `make fig4 SCALE=smoke` trains these 420; how long that takes is not known yet" in shown
    given = ("regularizer.sigma=0.03", "seed=0,1")  # of those that have a sigma, as the sweep takes it
    assert main(["fig4", "--scale", "smoke", "--set", *given]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "fig4 at scale smoke: 172 runs"
    assert main(["fig99"]) == 2
    assert capsys.readouterr().err.startswith("error: no experiment fig99; there are ant, ")
    assert main(["fig4", "fig10"]) == 2
    said = (
        "error: fig10 has no runs of its own: it is drawn from those of fig9; `make status FIG=fig9` says it of them\n"
    )
    assert capsys.readouterr().err == said
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
