"""Hydra's launcher for SLURM: hydra-submitit-launcher's, for sweeps in which jobs are killed and commands interrupted.

Theirs waits for every job in turn and ends with the first that left no result. Here each job has an outcome of its own;
one that ended without a word (`kill -9`, a lost node, no memory) is submitted again, and goes on from its checkpoint;
and jobs that an interrupted command left in the queue are waited for, not submitted twice. The queue itself, arrays,
time limits and requeueing are SLURM's and submitit's.
"""

import getpass
import io
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher
from omegaconf import DictConfig

if TYPE_CHECKING:
    from submitit import SlurmJob

ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"}
ENDED |= {"OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"}
ARRAY = "*.array.json"  # in submitit's folder: the arrays that were submitted from here


class Lost(RuntimeError):
    """A job that has ended and left no result."""


class Slurm(Launcher):
    """As configs/hydra/launcher/slurm.yaml describes it; other settings are submitit's."""

    elsewhere = True  # jobs run on other machines than this one

    def __init__(self, *, processes: int, array_size: int, retries: int, **settings: Any) -> None:
        self.processes, self.array_size, self.retries = processes, array_size, retries
        self.job = SlurmLauncher(**settings)  # what runs in a job, and is asked for a checkpoint by submitit
        self.folder = Path(self.job.params["submitit_folder"]).absolute()

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.job.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """One job for each list of overrides; how each of them ended."""
        import submitit

        from experiments.engine.config import ConfigError

        try:
            settings = {f"slurm_{key}": value for key, value in self.job.params.items() if value is not None}
            folder, timeouts = settings.pop("slurm_submitit_folder"), settings.pop("slurm_max_num_timeout")
            executor = submitit.AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=timeouts)
            executor.update_parameters(**settings)
        except (RuntimeError, NameError, ValueError, TypeError) as error:  # no SLURM, or a setting it does not know
            raise ConfigError(f"hydra/launcher=slurm: {error}") from error
        jobs = self._queued(job_overrides)
        outcomes: dict[int, JobReturn] = {}
        lost = dict.fromkeys(range(len(job_overrides)), 0)
        try:
            while len(outcomes) < len(job_overrides):
                todo = [k for k in range(len(job_overrides)) if k not in outcomes and k not in jobs]
                for start in range(0, len(todo), self.array_size):
                    part = todo[start : start + self.array_size]
                    jobs |= zip(part, self._submit(executor, [job_overrides[k] for k in part]), strict=True)
                    array = jobs[part[0]].job_id.split("_")[0]
                    print(f"SLURM job {array}: {len(part)} submitted, logs in {self.folder}", flush=True)
                for k, outcome in self._wait(jobs).items():
                    del jobs[k]
                    lost[k] += isinstance(outcome._return_value, Lost)
                    again = isinstance(outcome._return_value, Lost) and lost[k] <= self.retries
                    if again and "CANCELLED" not in str(outcome._return_value):
                        print(f"{outcome._return_value}; submitted again", file=sys.stderr)
                    else:
                        outcomes[k] = outcome
        except KeyboardInterrupt:
            arrays = " ".join(sorted({job.job_id.split("_")[0] for job in jobs.values()}))
            print(f"\n{len(jobs)} jobs stay in the queue (`scancel {arrays}` ends them)", file=sys.stderr)
            raise
        return [outcomes[k] for k in range(len(job_overrides))]

    def _submit(self, executor: Any, overrides: Sequence[Sequence[str]]) -> list["SlurmJob"]:
        """An array of jobs, which is also written down, for a later command to find it."""
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        from experiments.analysis.results import ResultsError, write_files
        from experiments.engine.config import ConfigError

        count = len(overrides)
        rest = ["hydra.sweep.dir"] * count, list(range(count)), ["job"] * count, [Singleton.get_state()] * count
        try:
            with redirect_stderr(io.StringIO()):  # submitit repeats there what is in its error
                jobs = executor.map_array(self.job, [list(words) for words in overrides], *rest)
        except (FailedJobError, FailedSubmissionError) as error:
            raise ConfigError(f"hydra/launcher=slurm: {error}") from None
        array = jobs[0].job_id.split("_")[0]
        kept = {job.job_id: list(words) for job, words in zip(jobs, overrides, strict=True)}
        try:
            write_files({self.folder / ARRAY.replace("*", array): json.dumps(kept).encode()})
        except ResultsError as error:  # this command waits for them all the same
            print(f"{error}: another command would not know of SLURM job {array}", file=sys.stderr)
        return jobs

    def _queued(self, overrides: Sequence[Sequence[str]]) -> dict[int, "SlurmJob"]:
        """The jobs that are in the queue with just these overrides, by their place among them."""
        import submitit

        from experiments.engine.store import read_notes

        files = sorted(self.folder.glob(ARRAY))  # before SLURM is asked: what another command submits since is not ours
        states = _states()
        found: dict[int, submitit.SlurmJob] = {}
        for file in files:
            kept = read_notes(file, "its jobs are not waited for")
            live = [name for name in kept if states and states.get(name, "COMPLETED") not in ENDED]
            for name in live:
                if kept[name] in overrides:
                    found[overrides.index(kept[name])] = submitit.SlurmJob(self.folder, name)
            if states is not None and not live:
                file.unlink(missing_ok=True)  # all of it has ended
        if found:
            print(f"{len(found)} jobs are in the queue already", flush=True)
        return found

    def _wait(self, jobs: dict[int, "SlurmJob"]) -> dict[int, JobReturn]:
        """Wait until some jobs have ended; their outcomes."""
        begin = time.monotonic()
        while True:
            left = [k for k, job in jobs.items() if job.paths.result_pickle.exists()]
            if not left and (silent := _silent(jobs)):
                time.sleep(5)  # on a shared disk a result may be seen later than the end of its job
                lost = [k for k in silent if not jobs[k].paths.result_pickle.exists()]
                if lost:
                    said = {k: f"{silent[k]} without a result, see {jobs[k].paths.stdout}" for k in lost}
                    return {k: _failure(Lost(line)) for k, line in said.items()}
            if left:
                return {k: _outcome(jobs[k]) for k in left}
            until = time.monotonic() + min(30.0, max(1.0, (time.monotonic() - begin) / 10))  # ask SLURM now and then
            while time.monotonic() < until and not any(job.paths.result_pickle.exists() for job in jobs.values()):
                time.sleep(0.5)


def _states() -> dict[str, str] | None:
    """The state of each of our jobs that SLURM still knows; None if it does not answer."""
    words = ["squeue", "--noheader", "--array", "--states=all", f"--user={getpass.getuser()}", "--format=%i %T"]
    done = subprocess.run(words, capture_output=True, text=True)
    return None if done.returncode else dict(line.split() for line in done.stdout.splitlines() if " " in line)


def _silent(jobs: Mapping[int, "SlurmJob"]) -> dict[int, str]:
    """The jobs that are in the queue no more, with how they ended."""
    states = _states()
    if states is None:
        return {}
    known = {k: states.get(job.job_id, "UNKNOWN") for k, job in jobs.items()}
    ended = {k: state for k, state in known.items() if state in ENDED | {"UNKNOWN"}}
    return {k: f"SLURM job {jobs[k].job_id} ended as {state}" for k, state in ended.items()}


def _outcome(job: "SlurmJob") -> JobReturn:
    """What a job has left."""
    from submitit.core import utils

    kind, result = utils.pickle_load(job.paths.result_pickle)
    if kind == "success":
        return result
    last = result.strip().splitlines()[-1].split(": ", 1)[-1]
    return _failure(RuntimeError(f"SLURM job {job.job_id}: {last}, see {job.paths.stdout}"))


def _failure(error: Exception) -> JobReturn:
    return JobReturn(_return_value=error, status=JobStatus.FAILED)
