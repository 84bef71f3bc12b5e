"""The queue ends with the numbers of an undisturbed sweep, however it is sliced, killed and carried about."""

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from experiments.analysis import results
from experiments.engine.experiment import Experiment
from scripts import gpu_queue
from scripts.gpu_queue import (
    BUNDLE,
    Deadline,
    State,
    give,
    load,
    main,
    passes_tests,
    queue,
    take,
    work,
)

ROOT = Path(__file__).parents[2]


class After(Deadline):
    """Stops after so many steps."""

    def __init__(self, steps: float) -> None:
        self.left = steps

    def over(self) -> bool:
        return self.left <= 0

    def __call__(self, step: int, total: int) -> bool:
        self.left -= 1
        return self.over()


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    threads, handler = torch.get_num_threads(), signal.getsignal(signal.SIGTERM)
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)
    signal.signal(signal.SIGTERM, handler)


def some(outputs: Path) -> Experiment:
    """Six runs of figure 5, as a group and as what is left of it, and with dropout among them."""
    options = SimpleNamespace(scale="smoke", outputs=outputs, results=outputs / "results", data_root=None)
    (whole,) = load(["fig5"], options)
    names = {"vanilla", "dropout"}
    runs = [run for run in whole.runs if run.config["regularizer"]["name"] in names and run.config["seed"] == 0]
    return replace(whole, runs=runs[:6])


def numbers(experiment: Experiment) -> dict[str, bytes]:
    return {run.id: (experiment.store.run(run.id) / "metrics.csv").read_bytes() for run in experiment.runs}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The numbers of the undisturbed runs."""
    experiment = some(tmp_path_factory.mktemp("whole"))
    assert work([experiment], After(float("inf"))) == 0
    return numbers(experiment)


@pytest.mark.slow
def test_slices_end_at_a_checkpoint_and_go_on_to_the_same_numbers(tmp_path: Path, whole: dict[str, bytes]) -> None:
    experiment, slices = some(tmp_path), 0
    while experiment.missing():
        work([experiment], After(17))
        slices += 1
    assert slices > 3
    assert numbers(experiment) == whole
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.slow
def test_a_bundle_carries_runs_and_checkpoints_to_another_machine(tmp_path: Path, whole: dict[str, bytes]) -> None:
    here, there, bundle = some(tmp_path / "here"), some(tmp_path / "there"), tmp_path / "bundle"
    work([here], After(70))
    done = len(here.runs) - len(here.missing())
    assert 0 < done < len(here.runs)
    assert len(list(here.store.folder.glob("groups/*.pt"))) == 1
    for _ in range(2):  # taken twice, nothing changes
        give(bundle, [here], here.store.folder.parent)
        take(bundle, there.store.folder.parent)
        assert len(there.runs) - len(there.missing()) == done
    work([there], After(3))  # a step further than the bundle: it is not to be taken back
    (kept,) = there.store.folder.glob("groups/*.pt")
    further = kept.read_bytes()
    take(bundle, there.store.folder.parent)
    assert kept.read_bytes() == further
    work([there], After(float("inf")))
    assert numbers(there) == whole
    take(bundle, there.store.folder.parent)  # nor is a checkpoint of what is finished
    assert not list(there.store.folder.glob("groups/*.pt"))


def test_a_checkpoint_that_is_too_large_stays_behind_and_says_so(tmp_path: Path, monkeypatch, capsys) -> None:
    experiment = some(tmp_path / "outputs")
    work([experiment], After(5))
    monkeypatch.setattr(gpu_queue, "BUNDLE_BYTES", 1000)
    give(tmp_path / "bundle", [experiment], experiment.store.folder.parent)
    assert "left behind, too large: fig5/groups/" in capsys.readouterr().out
    take(tmp_path / "bundle", tmp_path / "other")
    assert not list((tmp_path / "other").rglob("*.pt"))


@pytest.mark.slow
def test_a_bundle_is_cut_into_files_that_are_small_enough(tmp_path: Path, monkeypatch, capsys) -> None:
    experiment = some(tmp_path / "outputs")
    work([experiment], After(float("inf")))
    monkeypatch.setattr(gpu_queue, "FILE_BYTES", 2000)
    give(tmp_path / "bundle", [experiment], experiment.store.folder.parent)
    sizes = [path.stat().st_size for path in (tmp_path / "bundle").iterdir()]
    assert 1 < len(sizes) <= gpu_queue.FILES
    assert max(sizes) <= 2000
    take(tmp_path / "bundle", tmp_path / "other")
    assert not some(tmp_path / "other").missing()
    monkeypatch.setattr(gpu_queue, "FILE_BYTES", 100)
    with pytest.raises(results.ResultsError, match="do not fit into 8 files"):
        give(tmp_path / "bundle", [experiment], experiment.store.folder.parent)


@pytest.mark.parametrize("name", ["../evil", "fig5/runs/../../evil", "/etc/passwd", "fig5/runs/abc/done"])
def test_what_is_no_part_of_a_bundle_is_refused(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / f"{BUNDLE}.0", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(results.ResultsError, match="which is no part of a bundle"):
        take(tmp_path, tmp_path / "outputs")
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no gpu_queue.tar.gz.0"), (b"rubbish", "is damaged"), (b"", "is damaged")]
)
def test_a_damaged_or_missing_bundle_is_one_line(tmp_path: Path, content: bytes | None, message: str, capsys) -> None:
    if content is not None:
        (tmp_path / f"{BUNDLE}.0").write_bytes(content)
    assert main(["--take", str(tmp_path), "--minutes", "0", "--only", "table2", "--outputs", str(tmp_path / "o")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_first_three_seeds_of_all_experiments_come_before_any_fourth(tmp_path: Path) -> None:
    options = SimpleNamespace(scale="paper", outputs=tmp_path, results=tmp_path / "results", data_root=None)
    experiments = load(["fig3b", "table2"], options)
    order = [(experiment.name, group.runs[0].seed) for experiment, group in queue(experiments)]
    assert len(set(order)) == 20
    first = 3 * sum(len({run.id for run in e.runs if run.seed == 0}) for e in experiments if e.name == "fig3b") + 3
    assert [name for name, seed in order if seed < 3] == [name for name, _ in islice(order, first)]
    part = lambda first, last: list(chain(*([n] * (last - first) for n in ("fig3b", "table2"))))  # noqa: E731
    assert list(dict.fromkeys(order)) == list(
        zip(part(0, 3) + part(3, 10), [*range(3), *range(3), *range(3, 10), *range(3, 10)], strict=True)
    )


@pytest.mark.slow
def test_a_group_that_fails_does_not_end_the_slice(tmp_path: Path, monkeypatch, capsys) -> None:
    experiment = some(tmp_path)
    broken = experiment.runs[0].id
    real = gpu_queue.train_group

    def planted(group, *rest, **options):
        if group.runs[0].id == broken:
            raise RuntimeError("planted")
        return real(group, *rest, **options)

    monkeypatch.setattr(gpu_queue, "train_group", planted)
    assert work([experiment], After(float("inf"))) == 1
    assert "failed: RuntimeError: planted" in capsys.readouterr().out
    assert not experiment.store.finished(broken)
    assert len(experiment.missing()) < len(experiment.runs)


def test_without_a_gpu_it_lists_and_trains_only_if_told_to(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = ["--only", "table2", "--outputs", str(tmp_path)]
    assert main(words) == 2
    assert "torch sees no CUDA device" in capsys.readouterr().err
    assert main([*words, "--minutes", "0"]) == 0
    out = capsys.readouterr().out
    assert "0/90" in out  # nine settings, ten repetitions
    assert "0/10" in out
    assert main([*words, "--only", "fig99"]) == 2
    assert not list(tmp_path.glob("table2/groups/*"))  # a list packs nothing


def test_tests_have_passed_for_the_sources_as_they_lie_on_disk(tmp_path: Path, monkeypatch) -> None:
    """A copy of a checkout may have no commit, or changes."""
    for name in (
        "syre/a.py",
        "experiments/b/c.py",
        "tests/d.py",
        "scripts/e.py",
        "configs/f.yaml",
        "results/g.py",
        "syre/h.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    codes, ran = [], []
    monkeypatch.setattr(gpu_queue, "ROOT", tmp_path)
    run = lambda words, cwd: ran.append(words) or subprocess.CompletedProcess(words, codes.pop(0))  # noqa: E731
    monkeypatch.setattr(gpu_queue, "subprocess", SimpleNamespace(run=run))

    def asked(*answers: int) -> bool:
        """Whether the tests are run again; the state is read from its file each time."""
        codes[:] = answers
        assert passes_tests(State(tmp_path / "outputs", torch.device("cpu"))) == (answers != (1,))
        return len(codes) < len(answers)

    assert asked(1)  # they fail: nothing is kept
    assert asked(0)
    assert not asked(0)
    (tmp_path / "results/g.py").write_text("another")
    (tmp_path / "syre/h.txt").write_text("another")
    assert not asked(0)
    for name in ("syre/a.py", "experiments/b/c.py", "tests/d.py", "scripts/e.py", "configs/f.yaml"):
        (tmp_path / name).write_text("another")
        assert asked(0), name
    (tmp_path / "syre/a.py").rename(tmp_path / "syre/i.py")
    assert asked(0)
    assert "pytest" in ran[0]
    (tmp_path / "syre/i.py").rename(tmp_path / "syre/a.py")
    assert not asked(0)  # what has passed stays


@pytest.mark.slow
def test_it_loads_neither_a_logger_nor_what_draws() -> None:
    suspects = ("matplotlib", "scipy", "sklearn", "wandb", "joblib", "torch")
    code = f"import sys, scripts.gpu_queue; print(*[name for name in {suspects} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["torch"]  # the control


# ---- kill -9 ---------------------------------------------------------------------------------------------------------


def start(folder: Path, only: str) -> subprocess.Popen:
    words = [
        "--scale",
        "smoke",
        "--device",
        "cpu",
        "--minutes",
        "5",
        "--only",
        only,
        "--outputs",
        str(folder),
        "--no-tests",
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.gpu_queue", *words],
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def tables(folder: Path) -> tuple[str, bytes]:
    runs = pd.read_csv(folder / "runs.csv", dtype=str, keep_default_na=False)
    return results.without_provenance(runs).to_csv(index=False), (folder / "metrics.csv").read_bytes()


@pytest.mark.slow
def test_a_slice_killed_in_the_middle_and_called_again_ends_with_the_tables_of_make(tmp_path: Path) -> None:
    killed, only = tmp_path / "killed", "fig3b"
    process = start(killed, only)
    deadline = time.monotonic() + 120
    while len(list(killed.glob("*/runs/*/done"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = len(list(killed.glob("*/runs/*/done")))
    whole = len(load([only], SimpleNamespace(scale="smoke", outputs=killed, results=None, data_root=None))[0].runs)
    assert 5 <= before < whole  # control: there is something to go on from, and something left
    again = start(killed, only)
    out, _ = again.communicate(timeout=300)
    assert again.returncode == 0, out
    assert out.count(": done, ") == whole - before
    words = ["-m", f"experiment={only}", "scale=smoke", f"outputs={tmp_path / 'control'}", f"results={tmp_path / 'r'}"]
    subprocess.run([sys.executable, "-m", "experiments.run", *words], cwd=ROOT, check=True, capture_output=True)
    assert tables(killed / "fig3b/results-smoke/fig3b") == tables(tmp_path / "control/fig3b/results-smoke/fig3b")
