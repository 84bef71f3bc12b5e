"""On a real SLURM of one node: jobs that are preempted, killed, cancelled or fail end as they would have at home.

scripts/slurm_local.sh brings it up, as root, where SLURM is installed; where it cannot, it says why these are skipped.
`make test SLURM=1` installs it first.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from subprocess import PIPE, Popen

import pandas as pd
import pytest

from experiments.analysis.results import without_provenance

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm")]  # one node at a time
SCRIPT = Path(__file__).parents[3] / "scripts/slurm_local.sh"
SMALL = "model.hidden=[64,64]"
LONG = ("train.epochs=400", "train.checkpoints=40", "train.evaluations=4")
HUGE = 10**12  # wide: 256 TB, more than there are addresses
EIGHT = f"runs=[{{seed: [0,1,2,3,4,5,6], model.hidden: [[64,64]]}}, {{seed: 7, model.hidden: [[{HUGE}]]}}]"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """What is to be in the environment of a command that uses it."""
    folder = tmp_path_factory.mktemp("slurm") / "node"
    up = subprocess.run(
        ["bash", SCRIPT, "start", folder], env={**os.environ, "CPUS": "4"}, capture_output=True, text=True
    )
    if up.returncode == 77:
        pytest.skip(up.stderr.strip().splitlines()[-1])
    assert up.returncode == 0, up.stderr
    yield {"SLURM_CONF": str(folder / "slurm.conf")}
    subprocess.run(["bash", SCRIPT, "stop", folder], check=True)


@pytest.fixture
def begin(tmp_path, environment, cluster) -> Iterator[Callable[..., Popen]]:
    """Start a sweep, at home or on the cluster, in a folder of its own."""
    processes = []

    def call(place: str, *words: str) -> Popen:
        launcher = "joblib" if place == "home" else "slurm"
        words = ("-m", f"hydra/launcher={launcher}", f"outputs={tmp_path / place}", "replicas=1", *words)
        command, settings = [sys.executable, "-m", "experiments.run", *words], {"env": {**environment, **cluster}}
        processes.append(Popen(command, cwd=tmp_path, stdout=PIPE, stderr=PIPE, text=True, **settings))
        return processes[-1]

    yield call
    for process in processes:
        process.kill()
        process.communicate()
    with contextlib.suppress(FileNotFoundError):
        subprocess.run(["scancel", f"--user={os.getuid()}"], env={**environment, **cluster})


def tables(folder: Path) -> tuple[str, bytes]:
    """runs.csv without the columns of provenance, and metrics.csv."""
    (runs,) = folder.glob("run/results-custom/run/runs.csv")
    frame = pd.read_csv(runs, dtype=str, keep_default_na=False)
    return without_provenance(frame).to_csv(index=False), runs.with_name("metrics.csv").read_bytes()


def training(folder: Path) -> dict[str, dict[str, int]]:
    """The groups that have a checkpoint and train now: the process and the job."""
    found = {}
    for lock in folder.glob("run/groups/*.lock"):
        with contextlib.suppress(OSError, ValueError):
            step, *_ = map(int, lock.with_suffix(".step").read_text().split())
            process, job = map(int, re.search(r"process (\d+) on .*, SLURM job (\d+)", lock.read_text()).groups())
            if step > 500:
                found[lock.stem] = {"process": process, "job": job}
    return found


def some(folder: Path, but: tuple[str, ...] = ()) -> tuple[str, dict[str, int]]:
    """A group in training, as soon as there is one, other than those."""
    until = time.monotonic() + 300  # of a busy machine
    while time.monotonic() < until:
        for name, owner in training(folder).items():
            if name not in but:
                return name, owner
        time.sleep(0.02)
    raise AssertionError("nothing trains")


def logs(folder: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(folder.glob("run/slurm/*log.out")))


@pytest.mark.slow
def test_a_sweep_with_a_job_preempted_one_killed_and_one_failing_has_the_tables_of_a_run_at_home(
    tmp_path, begin, cluster
):
    sweep = begin("cluster", *LONG, EIGHT)
    killed, owner = some(tmp_path / "cluster")
    os.kill(owner["process"], signal.SIGKILL)
    _, owner = some(tmp_path / "cluster", but=(killed,))
    subprocess.run(["scancel", "--signal=USR2", str(owner["job"])], env=os.environ | cluster, check=True)
    out, err = sweep.communicate(timeout=280)
    assert sweep.returncode == 1, err
    assert "8 to train in 8 groups" in out
    # The one that was killed; and the other too, if scancel, which repeats itself, meets it again as it starts.
    assert set(re.findall(r"SLURM job \S+ ended as (\w+) without a result", err)) == {"FAILED"}
    assert "submitted again" in err
    assert "1 of 8 groups failed, the first with out of memory" in err
    assert "Requeued job" in logs(tmp_path / "cluster")  # the one that was preempted

    home = begin("home", *LONG, EIGHT)
    _, err = home.communicate(timeout=280)
    assert home.returncode == 1, err
    ours, theirs = tables(tmp_path / "cluster"), tables(tmp_path / "home")
    assert ours == theirs
    frame = pd.read_csv(next((tmp_path / "cluster").glob("run/results-custom/run/runs.csv")))
    assert dict(zip(frame["seed"], frame["status"], strict=True)) == dict.fromkeys(range(7), "done") | {7: "failed"}

    again = begin("cluster", *LONG, SMALL, "seed=0,1,2,3,4,5,6")
    out, err = again.communicate(timeout=60)
    assert (again.returncode, "7 runs at scale cpu, 0 to train in 0 groups" in out) == (0, True), err


def test_an_interrupted_command_leaves_its_jobs_in_the_queue_and_the_next_one_finds_them(tmp_path, begin):
    words = (*LONG[1:], SMALL, "train.epochs=1500", "seed=0,1")  # to last longer than the start of a command
    first = begin("cluster", *words)
    some(tmp_path / "cluster")
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=30)
    assert first.returncode == 130
    assert re.search(r"^\d jobs stay in the queue \(`scancel \d+` ends them\)", err, re.MULTILINE), err
    second = begin("cluster", *words)
    out, err = second.communicate(timeout=200)
    assert second.returncode == 0, err
    assert re.search(r"^\d jobs are in the queue already$", out, re.MULTILINE), out
    assert "submitted" not in out
    facts = [json.loads(path.read_text()) for path in (tmp_path / "cluster").glob("run/runs/*/run.json")]
    assert [row["status"] for row in facts] == ["done", "done"]


def test_a_cancelled_job_is_not_submitted_again_keeps_its_checkpoint_and_its_row_says_so(tmp_path, begin, cluster):
    sweep = begin("cluster", *LONG, SMALL, "seed=0")
    name, owner = some(tmp_path / "cluster")
    subprocess.run(["scancel", str(owner["job"])], env=os.environ | cluster, check=True)
    _, err = sweep.communicate(timeout=120)
    assert sweep.returncode == 1
    assert "ended as CANCELLED" in err
    assert "submitted again" not in err
    (row,) = (tmp_path / "cluster").glob("run/runs/*/run.json")
    assert json.loads(row.read_text())["status"] == "failed"
    assert (tmp_path / f"cluster/run/groups/{name}.pt").exists()
    assert not (tmp_path / f"cluster/run/groups/{name}.lock").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["hydra.launcher.partition=nowhere"], "invalid partition"),
        (["+hydra.launcher.partitoin=debug"], "partitoin"),
        (["hydra.launcher.mem_gb=100000"], "configuration is not available"),
        (["+hydra.launcher.additional_parameters.colour=red"], "colour"),
    ],
    ids=str,
)
def test_a_setting_that_slurm_refuses_is_one_line(tmp_path, begin, words, says):
    sweep = begin("cluster", *words, "seed=0")
    _, err = sweep.communicate(timeout=60)
    assert (sweep.returncode, err.count("\n")) == (2, 1), err
    assert err.startswith("error: hydra/launcher=slurm: ")
    assert says in err


def test_every_setting_of_the_launcher_reaches_sbatch(tmp_path, begin):
    """What a cluster is asked for; nothing has to be granted, since the job waits for a time that does not come."""
    words = (
        "partition=short",
        "account=mine",
        "qos=null",
        "nodes=1",
        "cpus_per_task=2",
        "mem_gb=3",
        "timeout_min=50",
        "array_parallelism=1",
        "signal_delay_s=90",
        "setup=[echo hello]",
        "name=mine",
    )
    more = (
        "+hydra.launcher.additional_parameters.begin=now+1hour",
        "+hydra.launcher.additional_parameters.mail-type=FAIL",
    )
    sweep = begin("cluster", "seed=0,1", *(f"hydra.launcher.{word}" for word in words), *more)
    while "submitted" not in (line := sweep.stdout.readline()):
        assert line, sweep.communicate()
    (script,) = (tmp_path / "cluster").glob("run/slurm/*_submission.sh")
    lines = set(script.read_text().splitlines())
    flags = (
        "partition=short",
        "account=mine",
        "nodes=1",
        "cpus-per-task=2",
        "mem=3GB",
        "time=50",
        "array=0-1%1",
        "signal=USR2@90",
        "job-name=mine",
        "requeue",
        "begin=now+1hour",
        "mail-type=FAIL",
    )
    assert {f"#SBATCH --{flag}" for flag in flags} | {"echo hello"} <= lines
    assert not any("qos" in line for line in lines)
    assert "srun --unbuffered" in script.read_text()
    assert " --cpus-per-task=2 " in script.read_text()
    sweep.send_signal(signal.SIGINT)
    assert "2 jobs stay in the queue" in sweep.communicate()[1]


@pytest.mark.slow
def test_a_run_that_torchrun_trains_inside_a_job_is_preempted_and_goes_on(tmp_path, begin, cluster, environment):
    network = (
        "model=vit",
        "model.dim=16",
        "model.depth=1",
        "model.heads=2",
        "model.mlp=16",
        "data=rgb_digits",
        "data.samples=64",
        "data.test_samples=32",
        "compute.device=cpu",
        "regularizer=syre",
    )
    length = ("train.epochs=0", "train.steps=3000", "train.batch_size=16", "train.checkpoints=100")
    sweep = begin("cluster", *network, *length, "seed=0", "hydra.launcher.processes=2")
    _, owner = some(tmp_path / "cluster")
    subprocess.run(["scancel", "--signal=USR2", str(owner["job"])], env=os.environ | cluster, check=True)
    _, err = sweep.communicate(timeout=280)
    assert sweep.returncode == 0, err
    assert "Requeued job" in logs(tmp_path / "cluster")
    (place,) = (tmp_path / "cluster").glob("run/runs/*")
    assert json.loads((place / "run.json").read_text())["device"] == "2 x cpu"

    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words = ["-m", "experiments.run", *network, *length, "seed=0", f"outputs={tmp_path / 'home'}"]
    subprocess.run([*launch, *words], env=environment, check=True)
    (home,) = (tmp_path / "home").glob("run/runs/*")
    assert (place / "metrics.csv").read_bytes() == (home / "metrics.csv").read_bytes()
