"""What training leaves behind: run directories, tables, and a mirror in W&B; with failures as rows of their own."""

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from experiments.analysis import results
from experiments.analysis.summaries import VERDICTS
from experiments.engine import build, training
from experiments.engine.config import run_id
from experiments.engine.experiment import Experiment
from experiments.engine.progress import Sight
from experiments.engine.store import RunStore

ROOT = Path(__file__).parents[2]
SMALL = ("model.hidden=[8]", "train.epochs=1", "train.evaluations=2")
PROVENANCE = {"git_sha", "dirty", "device", "threads", "versions", "seconds"}


def places(tmp_path):
    return f"outputs={tmp_path / 'outputs'}", f"results={tmp_path / 'results'}"


def tables(folder):
    """runs.csv without its provenance, as text, and the bytes of metrics.csv."""
    runs = results.without_provenance(pd.read_csv(folder / "runs.csv", dtype=str, keep_default_na=False))
    return runs.to_csv(index=False), (folder / "metrics.csv").read_bytes()


def statuses(folder):
    return pd.read_csv(folder / "runs.csv", keep_default_na=False).set_index("seed")["status"].to_dict()


# ---- one run -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_leaves_its_configuration_metrics_and_facts_and_is_not_trained_twice(tmp_path, command, environment):
    words = [*SMALL, *places(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.run", *words], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    (place,) = (tmp_path / "outputs/run/runs").iterdir()
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)
    assert {path.name for path in tmp_path.iterdir()} == {"outputs"}  # Hydra leaves nothing of its own
    assert {path.name for path in place.iterdir()} == {"config.yaml", "metrics.csv", "run.json", "done"}

    config = yaml.safe_load((place / "config.yaml").read_text())
    assert place.name == run_id(config)
    assert config["model"]["hidden"] == [8]
    facts = json.loads((place / "run.json").read_text())
    assert facts.keys() == {"id", "experiment", "scale", "status", "group"} | PROVENANCE
    assert (facts["id"], facts["status"], facts["threads"]) == (place.name, "done", 1)
    metrics = pd.read_csv(place / "metrics.csv")
    assert {"loss", "accuracy", "rank"} <= set(metrics["metric"])
    assert list(metrics[(metrics.split == "test") & (metrics.metric == "loss")]["step"]) == [0, 11, 22]
    last = metrics[metrics.split == "test"].groupby("metric")["value"].last()
    numbers = ", ".join(f"{metric} {last[metric]:.4g}" for metric in ("accuracy", "loss", "rank"))
    assert done.stdout == f"finished: {numbers} ({place})\n"
    assert not list((tmp_path / "outputs/run/groups").glob("*.pt"))  # nothing left to resume

    before = {path: path.stat().st_mtime_ns for path in place.iterdir()}
    again = command(*words)
    assert (again.code, again.out) == (0, f"finished before: {numbers} ({place})\n")
    assert {path: path.stat().st_mtime_ns for path in place.iterdir()} == before


def test_a_run_in_a_sweep_is_the_run_alone(tmp_path, command):
    """By its id, its directory, and (a group of one) its numbers."""
    alone = command(*SMALL, "seed=1", f"outputs={tmp_path / 'alone'}")
    swept = command("-m", *SMALL, "seed=0,1", "replicas=1", *places(tmp_path))
    assert (alone.code, swept.code) == (0, 0), swept.err
    (place,) = (tmp_path / "alone/run/runs").iterdir()
    assert (tmp_path / "outputs/run/runs" / place.name / "metrics.csv").read_bytes() == (
        place / "metrics.csv"
    ).read_bytes()
    assert sorted(statuses(tmp_path / "outputs/run/results-custom/run")) == [0, 1]


# ---- failures are rows ---------------------------------------------------------------------------------------------


def test_a_run_that_goes_nan_is_a_row_and_does_not_disturb_its_neighbours(tmp_path, command):
    words = ("-m", *SMALL, "optim=sgd", "optim.lr=0.1", "batched=[data.input_scale]", "replicas=2", *places(tmp_path))
    both = command(*words, "data.input_scale=1,1e30")
    assert both.code == 0, both.err
    folder = tmp_path / "outputs/run/results-custom/run"
    table = pd.read_csv(folder / "runs.csv", keep_default_na=False, dtype={"id": str})
    assert dict(zip(table["data.input_scale"], table["status"], strict=True)) == {1: "done", 1e30: "nan"}
    metrics = pd.read_csv(folder / "metrics.csv")
    good, bad = (table.set_index("status")["id"][status] for status in ("done", "nan"))
    assert metrics[metrics["id"] == good]["value"].notna().all()
    assert metrics[metrics["id"] == bad]["value"].isna().any()
    assert command(*words, "data.input_scale=1,1e30").out.count("2 runs at scale cpu, 0 to train") == 1  # it has ended


def test_a_run_that_fails_is_a_row_the_others_go_on_and_it_is_tried_again(tmp_path, command, monkeypatch):
    train = training.train

    def planted(team, task, batches, *rest, **options):
        if batches.seeds == [1]:
            raise RuntimeError("planted\nfailure")
        return train(team, task, batches, *rest, **options)

    monkeypatch.setattr(training, "train", planted)
    words = ("-m", *SMALL, "seed=0,1,2", "replicas=1", *places(tmp_path))
    first = command(*words)
    folder = tmp_path / "outputs/run/results-custom/run"
    assert first.code == 1
    assert first.err == "1 of 3 groups failed, the first with RuntimeError: planted failure\n"
    assert statuses(folder) == {0: "done", 1: "failed", 2: "done"}
    (error,) = (
        facts["error"]
        for path in (tmp_path / "outputs/run/runs").glob("*/run.json")
        if "error" in (facts := json.loads(path.read_text()))
    )
    assert error == "RuntimeError: planted\nfailure"

    monkeypatch.setattr(training, "train", train)
    second = command(*words)
    assert (second.code, "1 to train in 1 groups" in second.out) == (0, True)
    assert set(statuses(folder).values()) == {"done"}


# ---- a figure ------------------------------------------------------------------------------------------------------

FIGURE = (
    "-m",
    "experiment=fig4",
    "scale=smoke",
    "train.steps=40",
    "data.size=10",
    "seeds=1",
    "regularizer=vanilla,w_fix",
)


@pytest.mark.slow
def test_a_figure_trained_twice_gives_the_same_tables_byte_for_byte(tmp_path, command):
    folders = []
    for name, words in (("a", ()), ("b", ("wandb.project=another",)), ("control", ("recipe=2",))):
        outcome = command(*FIGURE, *words, *places(tmp_path / name))
        assert outcome.code == 0, outcome.err
        folders.append(tmp_path / name / "outputs/fig4/results-custom/fig4")
    a, b = map(tables, folders[:2])
    assert a == b
    assert a[0].count("\n") == 1 + 2 + 2 * 8 * 2
    ids = [set(pd.read_csv(folder / "runs.csv", dtype=str)["id"]) for folder in folders]
    assert ids[0] == ids[1]
    assert ids[0].isdisjoint(ids[2])
    values = [pd.read_csv(folder / "metrics.csv")["value"].sort_values().tolist() for folder in folders]
    assert values[0] == values[2]  # the recipe is a name for the numbers, it does not make them


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ((), "results"),
        (("scale=smoke",), "outputs/fig4/results-smoke"),
        (("hydra.launcher.n_jobs=1", "wandb.mode=disabled", "data_root=x"), "results"),
        (("optim.lr=0.02",), "outputs/fig4/results-custom"),
    ],
)
def test_only_a_figures_own_runs_reach_its_committed_tables(tmp_path, command, monkeypatch, words, place):
    collected = []
    monkeypatch.setattr(Experiment, "plan", lambda *_, **__: [])
    monkeypatch.setattr(RunStore, "collect", lambda store, where, *_: collected.append(where.parent))
    monkeypatch.setattr("experiments.analysis.report.known", lambda *_: [])
    monkeypatch.setattr("experiments.engine.sweep._compare", lambda *_: None)
    monkeypatch.setattr("experiments.analysis.report.sketch", lambda *_: None)
    outcome = command("-m", "experiment=fig4", "hydra/launcher=joblib", *places(tmp_path), *words)
    assert outcome.code == 0, outcome.err
    assert collected == [tmp_path / place]


def test_a_part_of_a_figure_that_cannot_be_drawn_still_has_its_tables(tmp_path, command):
    outcome = command(*FIGURE[:-1], "regularizer=w_fix", *places(tmp_path))  # without vanilla, the unit of its axes
    assert outcome.code == 0
    assert re.fullmatch(r"no figure: these are not all the runs that fig4 compares \(.+\)\n", outcome.err)
    assert set(statuses(tmp_path / "outputs/fig4/results-custom/fig4").values()) == {"done"}


@pytest.mark.parametrize("sweep", [("-m",), ()], ids=["sweep", "run"])
def test_a_name_of_ones_own_is_that_of_its_folder_and_of_no_file(tmp_path, command, sweep):
    outcome = command(*sweep, "experiment=mine", *SMALL, *places(tmp_path))
    assert outcome.code == 0, outcome.err
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["mine"]
    (facts,) = (json.loads(path.read_text()) for path in tmp_path.glob("outputs/mine/runs/*/run.json"))
    assert facts["experiment"] == "mine"
    assert (tmp_path / "outputs/mine/results-custom/mine/runs.csv").exists() == bool(sweep)
    assert not (tmp_path / "results").exists()


PART = ("-m", "experiment=fig4", "train.steps=40", "data.size=10", "seeds=1", "regularizer.weight_decay=1",
        "regularizer=vanilla,weight_decay,syre,w_fix,dropout", "regularizer.sigma=0.03")  # fmt: skip


@pytest.mark.slow
def test_a_figure_with_a_setting_that_some_of_its_runs_have_is_judged_and_drawn_beside_its_outputs(tmp_path, command):
    outcome = command(*PART, *places(tmp_path))
    assert outcome.code == 0, outcome.err
    folder = tmp_path / "outputs/fig4/results-custom/fig4"
    sigmas = pd.read_csv(folder / "runs.csv").groupby("regularizer.name")["regularizer.sigma"].unique()
    assert {name: list(values) for name, values in sigmas.dropna().items() if name == "syre"} == {"syre": [0.03]}
    assert sigmas.drop("syre").map(lambda values: pd.isna(values).all()).all()
    assert {"figure.png", "figure.pdf", "report.md"} <= {path.name for path in folder.iterdir()}
    assert f"tables: {folder}\n" in outcome.out
    assert any(verdict in outcome.out for verdict in VERDICTS)
    assert "smoke" not in outcome.out


def test_smoke_judges_nothing_says_so_and_names_its_data_its_tables_and_its_picture(tmp_path, command):
    """The control is the test before: another scale judges."""
    outcome = command(*PART, "scale=smoke", *places(tmp_path))
    folder = tmp_path / "outputs/fig4/results-custom/fig4"
    assert (outcome.code, outcome.err) == (0, "")
    first, *others = outcome.out.splitlines()
    assert re.fullmatch(r"fig4: (\d+) runs at scale smoke, \1 to train in \d+ groups", first)
    assert others == [
        "data: random_matrix",  # of the size that was asked for
        f"smoke judges nothing, it shows that everything runs; tables and picture: {folder}",
    ]
    assert {path.name for path in folder.iterdir()} == {"runs.csv", "metrics.csv", "figure.png"}
    assert not [*tmp_path.rglob("report.md"), *tmp_path.rglob("REPORT.md")]


def test_smoke_says_where_the_tables_of_a_part_are_that_cannot_be_drawn(tmp_path, command):
    words = [word for word in FIGURE if not word.startswith("data.size")]
    outcome = command(*words[:-1], "regularizer=w_fix", *places(tmp_path))
    folder = tmp_path / "outputs/fig4/results-custom/fig4"
    assert outcome.code == 0
    assert outcome.out.splitlines()[1:] == [
        "data: random_matrix, size=30 in place of 100",
        f"smoke judges nothing, it shows that everything runs; tables: {folder}",
    ]


def test_a_run_whose_loss_is_not_finite_says_so_in_the_end(tmp_path, command):
    words = (*SMALL, "optim=sgd", "data.input_scale=1e30", f"outputs={tmp_path}")
    outcome = command(*words)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("finished, but its loss is not finite: accuracy ")
    assert ", loss nan, " in outcome.out


# ---- progress ------------------------------------------------------------------------------------------------------


@pytest.fixture
def seen(monkeypatch):
    """What is shown: of what, and what there is to see at the beginning and in the end."""
    found = []

    @contextmanager
    def shown(what, look):
        found.append([what, replace(look())])
        yield
        found[-1].append(replace(look()))

    for module in ("experiments.run", "experiments.engine.sweep"):
        monkeypatch.setattr(f"{module}.shown", shown)
    return found


def test_a_run_alone_shows_what_it_does_from_the_start_and_then_its_steps(tmp_path, command, seen):
    assert command(*SMALL, *places(tmp_path)).code == 0
    ((what, first, last),) = seen
    assert what == "weight_decay hidden=[8] epochs=1 evaluations=2 seed 0"
    assert first == Sight(unit="steps", note="loading torch and the data set")
    assert (last.done, last.total, last.unit) == (21, 22, "steps")  # nobody is asked after the last one
    seen.clear()
    assert command(*SMALL, *places(tmp_path)).code == 0
    assert seen == []  # it has finished before


def test_a_sweep_shows_what_it_does_from_the_start_and_then_its_runs(tmp_path, command, seen):
    assert command("-m", *SMALL, "seed=0,1", *places(tmp_path)).code == 0
    (what, listing, loading), (same, starting, last) = seen
    assert what == same == "run"
    assert (listing, loading) == (Sight(note="listing its runs"), Sight(note="loading torch and the data sets"))
    assert starting == Sight(total=2, note="starting the first groups")
    assert (last.done, last.total) == (2, 2)


# ---- W&B -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def mirrored(tmp_path, monkeypatch):
    """No account, no settings and no network; the ids of what is mirrored, by the names of W&B's folders."""
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    return lambda: sorted(path.name.split("-", 3)[3] for path in tmp_path.glob("outputs/*/wandb/offline-run-*"))


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("-m", "seed=0,1", "replicas=1"), ("-m", "seed=0,1", "batched=[seed]")], ids=str)
def test_runs_are_mirrored_by_default_and_without_an_account(tmp_path, command, mirrored, words):
    outcome = command(*words, *SMALL, *places(tmp_path))
    assert (outcome.code, outcome.err) == (0, "")
    tables = ["run-cpu-results"] if words else []  # and the tables of a sweep
    runs = [path.name for path in (tmp_path / "outputs/run/runs").iterdir()]
    assert mirrored() == sorted([*runs, *tables])
    again = [path.stat().st_mtime_ns for path in tmp_path.glob("outputs/run/wandb/*/*.wandb")]
    assert command(*words, *SMALL, *places(tmp_path)).code == 0
    assert [path.stat().st_mtime_ns for path in tmp_path.glob("outputs/run/wandb/*/*.wandb")] == again
    assert command(*words, *SMALL, *places(tmp_path / "none"), "wandb.mode=disabled").code == 0
    assert not (tmp_path / "none/outputs/run/wandb").exists()


@pytest.mark.slow
def test_where_wandb_is_not_reached_training_goes_on_and_the_runs_are_kept_for_later(tmp_path, command, mirrored):
    words = ("-m", "seed=0,1", "replicas=1", *SMALL)
    outcome = command(*words, *places(tmp_path), "wandb.mode=online")
    assert outcome.code == 0
    assert outcome.err.startswith("W&B: not online (")
    assert outcome.err.count("wandb sync") == outcome.err.count("\n")
    assert len(mirrored()) == 3
    assert command(*words, *places(tmp_path / "quiet"), "wandb.mode=disabled").code == 0
    folders = [path / "outputs/run/results-custom/run" for path in (tmp_path, tmp_path / "quiet")]
    assert tables(folders[0]) == tables(folders[1])


# ---- devices -------------------------------------------------------------------------------------------------------


def test_the_device_is_the_gpu_where_there_is_one_and_what_was_asked_for_elsewhere():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert build.device_of("auto") == torch.device(expected)
    assert build.device_of("cpu") == torch.device("cpu")


GPUS = ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "SLURM_GPUS_ON_NODE", "CUDA_VISIBLE_DEVICES")


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in GPUS:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    "given",
    [
        *[{name: "1"} for name in GPUS],
        {"SLURM_JOB_GPUS": "0"},
        {"SLURM_GPUS_ON_NODE": "0", "CUDA_VISIBLE_DEVICES": "0"},
    ],
)
def test_gpus_that_torch_cannot_use_are_not_passed_over_in_silence(given, no_gpu, tmp_path, command):
    for name, value in given.items():
        no_gpu.setenv(name, value)
    name, value = list(given.items())[-1]
    for words in (["seed=0"], ["-m", "seed=0,1"]):
        outcome = command(*words, "model.hidden=[8]", "train.epochs=1", f"outputs={tmp_path / 'outputs'}")
        assert (outcome.code, outcome.err.count("\n")) == (2, 1)
        assert outcome.err.startswith("error: compute.device=auto: there are GPUs here")
        assert all(words in outcome.err for words in (f"{name}={value}", torch.__version__, "compute.device=cpu"))
        assert not list(tmp_path.rglob("done"))
    assert build.device_of("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"SLURM_GPUS_ON_NODE": "0"},
        {"SLURM_JOB_GPUS": ""},
        *[{"SLURM_JOB_GPUS": "0", "CUDA_VISIBLE_DEVICES": hidden} for hidden in ("", "-1", "NoDevFiles")],
    ],
)
def test_where_there_are_no_gpus_or_they_are_hidden_auto_is_the_cpu(given, no_gpu):
    for name, value in given.items():
        no_gpu.setenv(name, value)
    assert build.device_of("auto") == torch.device("cpu")


@pytest.mark.parametrize("group_id", ["12e456789012", "012345678901", "123456789012", "abcdef012345"])
def test_a_group_whose_id_looks_like_a_number_is_found_by_it(tmp_path, command, monkeypatch, group_id):
    """12e456789012 is infinity to YAML, and a leading 0 would be lost: one group in a few hundred has such an id."""
    monkeypatch.setattr("experiments.engine.expand.Group.id", property(lambda group: group_id))
    done = command("-m", "train.epochs=1", "model.hidden=[4]", "seed=0,1", "batched=[seed]", f"outputs={tmp_path}")
    assert done.code == 0, done.err
    assert [path.stem for path in tmp_path.glob("run/groups/*.json")] == [group_id]
    assert len(list(tmp_path.glob("run/runs/*/done"))) == 2


def test_a_group_that_has_ended_leaves_no_progress_behind(tmp_path, command):
    words = ("model.hidden=[8]", "train.epochs=1", f"outputs={tmp_path}")
    assert command(*words).code == 0
    assert (tmp_path / "run/groups").is_dir()
    assert list((tmp_path / "run/groups").iterdir()) == []


@pytest.mark.slow
def test_the_versions_of_the_physics_are_kept_with_a_run_that_acts(tmp_path, environment):
    words = [
        "model=ppo",
        "data=slippery_ant",
        "task=ppo",
        "train.epochs=0",
        "train.steps=64",
        "task.rollout=64",
        "model.hidden=[8]",
        "compute.device=cpu",
        f"outputs={tmp_path}",
    ]
    subprocess.run([sys.executable, "-m", "experiments.run", *words], env=environment, check=True)
    (kept,) = tmp_path.glob("run/runs/*/run.json")
    assert {"gymnasium", "mujoco", "stable-baselines3", "torch"} <= set(json.loads(kept.read_text())["versions"])
