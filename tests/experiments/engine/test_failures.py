"""What goes wrong while a sweep trains is a row and one clear line; the other runs go on."""

import gc
import json
import signal
import weakref
from concurrent.futures import BrokenExecutor

import pandas as pd
import pytest
import torch
from hydra.errors import HydraException
from joblib import Parallel, delayed
from omegaconf.errors import OmegaConfBaseException

from experiments.analysis.results import ResultsError
from experiments.engine import sweep, training
from experiments.engine.errors import ConfigError, one_line
from syre.data import DataError

SMALL = ("model.hidden=[8]", "train.epochs=2", "train.evaluations=4")
SWEEP = ("-m", *SMALL, "seed=0,1,2", "replicas=1")
HUGE = f"model.hidden=[{10**12}]"  # 256 TB: more than there are addresses


def places(tmp_path):
    return f"outputs={tmp_path / 'outputs'}", f"results={tmp_path / 'results'}"


def facts(tmp_path):
    """seed -> run.json of every run that is there."""
    paths = (tmp_path / "outputs/run/runs").glob("*/run.json")
    table = [json.loads(path.read_text()) for path in paths]
    configs = {row["id"]: (tmp_path / "outputs/run/runs" / row["id"] / "config.yaml").read_text() for row in table}
    return {int(configs[row["id"]].split("\nseed: ")[1].split()[0]): row for row in table}


def plant(monkeypatch, error, seed=1):
    """`error` in the second step of the run of this seed; the models that are alive when each run begins."""
    train, models, alive = training.train, weakref.WeakSet(), []

    def planted(team, task, batches, *rest, **options):
        gc.collect()
        alive.append(len(models))
        models.add(team.replicas[0].model)
        steps = 0

        def loss(*arguments):
            nonlocal steps
            steps += 1
            if batches.seeds == [seed] and steps == 2:
                raise error
            return type(task).loss(task, *arguments)

        object.__setattr__(task, "loss", loss)
        yield from train(team, task, batches, *rest, **options)

    monkeypatch.setattr(training, "train", planted)
    return alive


# ---- memory ----------------------------------------------------------------------------------------------------------

CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")
CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 9 bytes. Error code 12 (Cannot allocate memory)"
)
WORDS = ["out of memory with train.batch_size=64", "train.accumulate", "lower train.batch_size", "allocate"]


@pytest.mark.slow
@pytest.mark.parametrize("error", [CUDA, CPU], ids=["cuda", "cpu"])
def test_a_run_out_of_memory_is_a_row_that_says_what_to_lower_and_the_sweep_goes_on(
    tmp_path, command, monkeypatch, error
):
    alive = plant(monkeypatch, error)
    outcome = command(*SWEEP, *places(tmp_path))
    assert outcome.code == 1
    assert outcome.err.startswith("1 of 3 groups failed, the first with out of memory")
    assert outcome.err.count("\n") == 1
    rows = facts(tmp_path)
    assert {seed: row["status"] for seed, row in rows.items()} == {0: "done", 1: "failed", 2: "done"}
    for word in WORDS:
        assert word in outcome.err
        assert word in rows[1]["error"]
    assert alive == [0, 0, 0]  # what the failed run held is free again
    table = pd.read_csv(tmp_path / "outputs/run/results-custom/run/runs.csv")
    assert dict(zip(table["seed"], table["status"], strict=True)) == {0: "done", 1: "failed", 2: "done"}


@pytest.mark.slow
def test_control_another_error_is_not_taken_for_it(tmp_path, command, monkeypatch):
    plant(monkeypatch, RuntimeError("planted"))
    outcome = command(*SWEEP, *places(tmp_path))
    assert (outcome.code, outcome.err) == (1, "1 of 3 groups failed, the first with RuntimeError: planted\n")


def test_a_lone_run_out_of_memory_is_one_line_and_a_row_and_is_tried_again(tmp_path, command):
    outcome = command(*SMALL, HUGE, *places(tmp_path))
    assert outcome.code == 1, outcome.err
    assert outcome.err.startswith("error: out of memory")
    assert outcome.err.count("\n") == 1
    assert facts(tmp_path)[0]["status"] == "failed"
    assert command(*SMALL, HUGE, *places(tmp_path)).code == 1


@pytest.mark.parametrize("replicas", [0, 1])
def test_a_model_that_is_too_large_does_not_stop_the_sweep(tmp_path, command, replicas):
    outcome = command("-m", *SMALL[1:], f"model.hidden=[8],[{10**12}]", f"replicas={replicas}", *places(tmp_path))
    assert outcome.code == 1, outcome.err
    table = pd.read_csv(tmp_path / "outputs/run/results-custom/run/runs.csv")
    assert dict(zip(table["model.hidden"], table["status"], strict=True)) == {"[8]": "done", f"[{10**12}]": "failed"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_process_that_is_killed_is_one_line_that_says_by_what(tmp_path, command, monkeypatch, number):
    with pytest.raises(BrokenExecutor) as found:
        Parallel(n_jobs=2)(delayed(signal.raise_signal)(number) for _ in range(2))

    class Killed:
        def launch(self, *_, **__):
            raise found.value

    whole = sweep.sweep
    monkeypatch.setattr(sweep, "sweep", lambda *arguments: whole(*arguments[:-1], Killed()))
    outcome = command(*SWEEP, *places(tmp_path))
    memory = ", most likely for want of memory: lower hydra.launcher.n_jobs or train.batch_size"
    assert (outcome.code, outcome.err) == (
        1,
        f"error: a process ended by {number.name}{memory if number is signal.SIGKILL else ''}; the same command "
        "goes on with what is missing\n",
    )


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("... {EXIT(3)}", "a process ended by exit code 3"),
        ("... {SIGBUS(-7), SIGKILL(-9), SIGKILL(-9)}", "a process ended by SIGBUS and SIGKILL"),
        ("A result has failed to\nun-serialize.", "A result has failed to un-serialize."),
    ],
)
def test_a_process_that_ends_otherwise_is_not_said_to_want_memory(text, what):
    assert sweep._why_killed(text) == f"{what}; the same command goes on with what is missing"


def raised(error, cause):
    try:
        raise error from cause
    except type(error) as found:
        return found


@pytest.mark.parametrize(
    ("error", "cause", "line"),
    [
        (RuntimeError("no room"), OSError("no room"), "RuntimeError: no room"),
        (RuntimeError("no room: 3 left"), OSError("3 left"), "RuntimeError: no room: 3 left"),
        (RuntimeError("no room"), OSError("no room: 3 left"), "RuntimeError: no room: 3 left"),
        (HydraException("in 'x'"), OmegaConfBaseException("in\n'x'"), "in 'x'"),
        (HydraException("in 'x'"), OmegaConfBaseException("bad key"), "in 'x'; bad key"),  # what Hydra leaves out
        (RuntimeError("one"), ValueError("another"), "RuntimeError: one; another"),
        (ConfigError("a batch of 3"), ValueError("three"), "a batch of 3"),  # ours says all that there is to say
        (ResultsError("cannot write x: full"), OSError(28, "full", "x"), "cannot write x: full"),
        (ConfigError("alone"), None, "alone"),
    ],
    ids=str,
)
def test_an_error_and_its_cause_do_not_repeat_each_other(error, cause, line):
    assert one_line(raised(error, cause)) == line


# ---- settings and data that fail one group only ----------------------------------------------------------------------


@pytest.mark.parametrize("error", [ConfigError("unfit"), DataError("cifar10: gone")], ids=["config", "data"])
def test_what_fits_or_is_there_for_the_other_runs_only_is_a_row_too(tmp_path, command, monkeypatch, error):
    assemble = training.assemble

    def planted(group, *rest):
        if group.runs[0].seed == 1:
            raise error
        return assemble(group, *rest)

    monkeypatch.setattr(training, "assemble", planted)
    outcome = command(*SWEEP, *places(tmp_path))
    assert (outcome.code, outcome.err) == (1, f"1 of 3 groups failed, the first with {error}\n")
    rows = facts(tmp_path)
    assert {seed: row["status"] for seed, row in rows.items()} == {0: "done", 1: "failed", 2: "done"}
    assert str(error) in rows[1]["error"]


@pytest.mark.parametrize(
    ("name", "state", "sweep"),
    [("cifar10", "missing", ["-m"]), ("cifar10", "damaged", []), ("cifar100", "damaged", ["-m"])],
    ids=str,
)
def test_missing_and_damaged_cifar_files_are_found_before_anything_is_written(tmp_path, command, name, state, sweep):
    root, folder = tmp_path / "data", {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[name]
    if state == "damaged":
        (root / folder).mkdir(parents=True)
        files = [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch", "batches.meta", "train", "test", "meta"]
        for file in files:
            (root / folder / file).write_bytes(b"damaged")
    outcome = command(*sweep, f"data={name}", *SMALL, f"data_root={root}", *places(tmp_path))
    assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome.err
    assert f"make data DATA={name}" in outcome.err
    assert (f"{root / folder}" if state == "damaged" else f"{name} is not in {root}") in outcome.err
    assert not (tmp_path / "outputs").exists()


# ---- losses that are no numbers --------------------------------------------------------------------------------------

EXPLODES = (*SMALL, "optim=sgd", "optim.lr=1e30")


def steps(tmp_path, split="test"):
    """seed and learning rate -> the steps that were recorded."""
    table = tmp_path / "outputs/run/results-custom/run"
    runs = pd.read_csv(table / "runs.csv", dtype={"id": str}, keep_default_na=False).set_index("id")
    metrics = pd.read_csv(table / "metrics.csv", dtype={"id": str})
    found = metrics[(metrics["metric"] == "loss") & (metrics["split"] == split)]
    return {(runs.loc[id, "optim.lr"], runs.loc[id, "status"]): list(rows["step"]) for id, rows in found.groupby("id")}


def test_a_lone_run_whose_loss_is_no_number_ends_at_the_next_evaluation_as_a_row(tmp_path, command):
    words = ("-m", *EXPLODES[:-1], "optim.lr=1e30,0.1", "replicas=1", *places(tmp_path))
    outcome = command(*words)
    assert outcome.code == 0, outcome.err
    whole = [0, 11, 22, 33, 44]
    assert steps(tmp_path) == {(1e30, "nan"): whole[:2], (0.1, "done"): whole}
    assert steps(tmp_path, "train") == {(1e30, "nan"): whole[1:2], (0.1, "done"): whole[1:]}
    assert "2 runs at scale cpu, 0 to train" in command(*words).out  # it has ended


def test_control_in_an_ensemble_it_goes_on_beside_its_neighbours(tmp_path, command):
    words = ("batched=[optim.lr]", "replicas=2")
    outcome = command("-m", *EXPLODES[:-1], "optim.lr=1e30,0.1", *words, *places(tmp_path))
    assert outcome.code == 0, outcome.err
    assert {status: len(found) for (_, status), found in steps(tmp_path).items()} == {"nan": 5, "done": 5}


def test_a_single_run_whose_loss_is_no_number_is_a_row_too(tmp_path, command):
    outcome = command(*EXPLODES, *places(tmp_path))
    assert (outcome.code, outcome.err) == (0, "")
    assert facts(tmp_path)[0]["status"] == "nan"
