"""The process that mirrors in W&B: `python -m experiments.engine.mirror_process mode project folder experiment`.

It is told what to watch (see `mirror.py`), and looks about once a second for what there is to send, in `folder`,
outputs/<experiment>: a run, wherever it is trained, as soon as runs/<id> is finished; online, one that may be seen
live from when there is a file of its records, which training keeps beside its checkpoint. All it keeps itself is in
outputs/<experiment>/wandb: `offline-run-*`, one for each run, for `wandb sync`; `mirrored/<id>`, so that a run is
mirrored again only when it was trained again; and what W&B keeps.
"""

import csv
import importlib
import json
import os
import queue
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml: ten times faster

Steps = list[tuple[int, dict[str, float]]]  # ascending, each with its values by split/metric

AT_ONCE = 8  # runs that are sent at a time: each waits for the server a second or two
BATCH = 50  # runs that are written offline before they are put into their places: it takes W&B 0.2 s to end
SPARE = 1 << 16  # bytes, more than W&B writes at a time
# Settings of W&B, as it takes them from the environment. Nothing but our records: a run costs a hundredth of a second.
ON = ["DISABLE_CODE", "DISABLE_GIT", "DISABLE_JOB_CREATION", "FINISH_TIMEOUT_RAISES", "QUIET", "SILENT"]
ON += ["_DISABLE_MACHINE_INFO", "_DISABLE_META", "_DISABLE_STATS"]
OFF = ["ERROR_REPORTING", "SAVE_CODE", "SYMLINK", "USE_DOT_WANDB", "_SAVE_REQUIREMENTS"]
QUIET = {"CONSOLE": "off"} | dict.fromkeys(ON, "true") | dict.fromkeys(OFF, "false")
TIMEOUTS = {"WANDB_INIT_TIMEOUT": "20", "WANDB_FINISH_TIMEOUT": "45"}  # seconds, unless they are set; < mirror.PATIENCE
LEFT_OUT = ("experiment", "scale", "status", "group")  # of run.json: they stand elsewhere
AGENT = ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH")  # what `wandb agent` tells the program it starts


class Live:
    """A W&B run that is open: a step that W&B has, of the run before it was resumed say, is not sent again."""

    def __init__(self, run: Any, since: int = 0) -> None:
        self.run, self.since = run, since  # the `_stamp` of the run as it was before
        self.sent = run.starting_step - 1

    def send(self, steps: Steps) -> None:
        for step, values in steps:
            if step > self.sent:
                self.run.log(values, step=step, commit=True)
                self.sent = step


@dataclass
class Worker:
    """What the process knows and does."""

    mode: str
    project: str
    folder: Path
    experiment: str
    tell: Callable[[str], None]  # the user, in one line
    agent: dict[str, str]  # the variables of `AGENT`, if there is one
    pause: float = 0.0  # seconds until the next look
    swept: str = ""  # the run that stands for the agent's
    watched: dict[str, Any] = field(default_factory=dict)  # what it has been told
    live: dict[str, Live] = field(default_factory=dict)
    written: dict[str, tuple[Path, int]] = field(default_factory=dict)  # offline, not in place yet: folder, stamp
    failed: dict[str, str] = field(default_factory=dict)  # run -> why
    lost: list[Exception] = field(default_factory=list)  # what went wrong in W&B while online

    @property
    def root(self) -> Path:
        return self.folder / "wandb"

    def watch(self, runs: dict[str, Any]) -> None:
        self.watched |= runs
        with suppress(Exception):  # what is wrong will show when it is used
            if self.agent and len(self.watched) == 1:
                (self.swept,) = runs
                _marker(self.folder, self.swept).unlink(missing_ok=True)
            if not all(mirrored(self.folder, run_id) for run_id in runs):
                importlib.import_module("wandb")  # a second's work that need not wait for the end

    def look(self, last: bool = False) -> None:
        """Send what has come since the last time; the last look also tries again what did not work."""
        began = time.monotonic()
        tasks = [(run_id, task) for run_id in self.watched if (task := self._task(run_id, last))]
        looked, online = time.monotonic(), self.mode == "online"
        for k in range(0, len(tasks), BATCH):
            with ThreadPoolExecutor(AT_ONCE if online else 1) as pool:
                list(pool.map(self._try, *zip(*tasks[k : k + BATCH], strict=True)))
            if online and self.lost:
                self._fall_back(self.lost[0])
                return self.look(last)
            self._settle()
        took = (looked if online else time.monotonic()) - began  # the server's time does not count
        self.pause = min(max(1.0, 20 * took), 10.0)  # neither a slow disk nor a processor is kept busy by looking

    def _task(self, run_id: str, last: bool) -> Callable[[], None] | None:
        """What is to be done for a run now, if anything."""
        about = self.watched[run_id]
        if run_id in self.failed and not last:
            return None
        if "files" in about:
            return partial(self._artifact, run_id, about["artifact"], [Path(file) for file in about["files"]])
        # In this order: records go when the directory is finished, and where there is neither, the run is interrupted.
        records = _modified(Path(about["records"])) if self._seen(run_id) else 0
        stamp = _stamp(self.folder / "runs" / run_id)
        live = self.live.get(run_id)
        if stamp <= live.since if live else records > stamp:  # it trains, after it has failed perhaps
            return partial(self._follow, run_id, stamp) if records else partial(self._interrupt, run_id)
        return None if not stamp or mirrored(self.folder, run_id) else partial(self._mirror, run_id, stamp)

    def _try(self, run_id: str, task: Callable[[], None]) -> None:
        try:
            task()
        except Exception as error:
            self.failed[run_id] = _line(error)
        else:
            self.failed.pop(run_id, None)

    @contextmanager
    def _sending(self) -> Iterator[None]:
        """What fails in here while online is to be done offline."""
        if self.mode == "online" and self.lost:
            raise self.lost[0]
        try:
            yield
        except Exception as error:
            self.lost.append(error)
            raise

    def _fall_back(self, error: Exception) -> None:
        """From now on nothing is sent: what cannot be online is kept, each run when it is finished."""
        self.mode = "offline"
        self.live.clear()
        self.failed.clear()
        if not isinstance(error, ImportError):  # without W&B nothing is kept either, and `close` says so
            self.tell(f"not online ({_line(error)}); runs are kept for: wandb sync {self.root}")
            with suppress(Exception, SystemExit):
                import wandb

                wandb.teardown(exit_code=1)  # to its own process, a run that could not begin is in use for ever

    def close(self) -> None:
        self.look(last=True)
        for run_id in list(self.live):
            with suppress(Exception):
                self._interrupt(run_id)
        if self.failed:
            reason = next(iter(self.failed.values()))
            what = f"{len(self.failed)} of {len(self.watched)} runs are not mirrored ({reason})"
            self.tell(f"{what}; the same command mirrors them")

    # ---- a run

    def _seen(self, run_id: str) -> bool:
        """Whether it may be seen while it trains."""
        return self.mode == "online" and "records" in self.watched[run_id]

    def _follow(self, run_id: str, stamp: int) -> None:
        """Send a step when the next one has come, for a run to be resumed with whole steps; of lines, whole ones."""
        about, text = self.watched[run_id], ""
        with suppress(OSError):  # it has just gone
            text = Path(about["records"]).read_text()
        steps = _steps(text[: text.rfind("\n") + 1])
        with self._sending():
            if run_id not in self.live:
                config = about["config"] | {"provenance": {"id": run_id}}
                self.live[run_id] = Live(self._open(run_id, config, resume="allow"), stamp)
            self.live[run_id].send(steps[:-1])

    def _interrupt(self, run_id: str) -> None:
        with self._sending():
            self.live.pop(run_id).run.finish(exit_code=1)

    def _mirror(self, run_id: str, stamp: int) -> None:
        """A finished run: all of it, or what is left to be sent."""
        place = self.folder / "runs" / run_id
        config = yaml.load((place / "config.yaml").read_text(), Loader=Loader)
        facts = json.loads((place / "run.json").read_text())
        facts, status = {key: facts[key] for key in facts if key not in LEFT_OUT}, facts["status"]
        steps = _steps((place / "metrics.csv").read_text())
        with self._sending():
            resume = "allow" if self._seen(run_id) else None  # what has been sent of it stays
            live = self.live.get(run_id) or Live(self._open(run_id, config | {"provenance": facts}, resume=resume))
            live.run.config.update({"provenance": facts}, allow_val_change=True)
            live.send(steps)
            self._finish(run_id, live.run, status, stamp)

    def _finish(self, run_id: str, run: Any, status: str, stamp: int) -> None:
        run.summary.update({"status": status})
        run.finish(exit_code=int(status == "failed"))
        self.live.pop(run_id, None)
        if self.mode == "offline":
            self.written[run_id] = Path(run.dir).parent, stamp
        else:
            self._mark(run_id, stamp)

    def _mark(self, run_id: str, stamp: int) -> None:
        """The marker has the time of what was mirrored: the clock of the machine that trains may be another."""
        marker = _marker(self.folder, run_id)
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
        os.utime(marker, ns=(stamp, stamp))

    def _settle(self) -> None:
        """Put what was written offline into its place: it is whole when W&B's own process has ended, not before."""
        if self.written:
            import wandb

            try:
                wandb.teardown()
            except (Exception, SystemExit) as error:
                self.failed |= dict.fromkeys(self.written, _line(error))
                self.written.clear()
        while self.written:
            run_id, (folder, stamp) = self.written.popitem()
            self._try(run_id, partial(self._put, run_id, folder, stamp))

    def _put(self, run_id: str, folder: Path, stamp: int) -> None:
        """In place of an earlier one, if there is room left: without, W&B leaves out the rest, and says nothing."""
        room = folder / "room"
        try:
            room.write_bytes(os.urandom((folder / f"run-{run_id}.wandb").stat().st_size + SPARE))
        finally:
            room.unlink(missing_ok=True)
        for of_no_use in (folder / "logs", folder / "tmp", *self.root.glob(f"offline-run-*-{run_id}")):
            shutil.rmtree(of_no_use, ignore_errors=True)
        folder.rename(self.root / folder.name)
        self._mark(run_id, stamp)

    # ---- figures and tables

    def _artifact(self, run_id: str, name: str, files: Sequence[Path]) -> None:
        """The files as an artifact, with the pictures among them to be seen; nothing if they are mirrored already."""
        stamp = max((file.stat().st_mtime_ns for file in files), default=0)
        if stamp <= _modified(_marker(self.folder, run_id)):
            return
        with self._sending():
            import wandb

            run = self._open(run_id, {}, job_type="results", resume="allow")
            artifact = wandb.Artifact(name, type="results")
            for file in files:
                artifact.add_file(str(file), skip_cache=True)
                with suppress(ImportError):  # of Pillow
                    if file.suffix == ".png":
                        run.log({file.stem: wandb.Image(str(file))}, commit=False)
            run.log_artifact(artifact)
            self._finish(run_id, run, "done", stamp)

    # ---- W&B

    def _open(self, run_id: str, config: dict[str, Any], *, job_type: str = "run", resume: str | None = None) -> Any:
        """A W&B run. One that is offline is written aside, and put into its place once it is whole."""
        import wandb

        folder = self.root / ".partial" if self.mode == "offline" else self.folder
        folder.mkdir(parents=True, exist_ok=True)
        self.root.mkdir(exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder} is not writable")  # W&B would go to /tmp
        for left in (self.root / ".partial/wandb").glob(f"*-{run_id}"):
            shutil.rmtree(left)  # of a mirror that was ended
        options: dict[str, Any] = {"id": run_id, "project": self.project, "resume": resume}
        if run_id == self.swept:  # the agent's run has an id of its own, and no past
            options = {"id": self.agent["WANDB_RUN_ID"], "project": os.environ.get("WANDB_PROJECT", self.project)}
            options["settings"] = wandb.Settings(sweep_id=self.agent["WANDB_SWEEP_ID"])
            config = config | _chosen(self.agent.get("WANDB_SWEEP_PARAM_PATH", ""))
        about = self.watched[run_id]
        options |= {"name": about.get("name", run_id), "tags": about.get("tags")}
        options |= {"group": self.experiment, "job_type": job_type, "config": config, "mode": self.mode}
        return wandb.init(**options, dir=str(folder), reinit="create_new")


def mirrored(folder: Path, run_id: str) -> bool:
    """Whether a run is finished, and mirrored as it is."""
    return 0 < _stamp(folder / "runs" / run_id) <= _modified(_marker(folder, run_id))


def _marker(folder: Path, run_id: str) -> Path:
    return folder / "wandb/mirrored" / run_id


def _modified(file: Path) -> int:
    """When a file was written, in nanoseconds; 0 if there is none."""
    with suppress(OSError):
        return file.stat().st_mtime_ns
    return 0


def _stamp(place: Path) -> int:
    """When a run was finished, in nanoseconds; 0 if it is not. Trained again, it leaves `done` as it was."""
    times = [_modified(place / name) for name in ("done", "run.json")]
    return max(times) if all(times) else 0


def _steps(text: str) -> Steps:
    """The records of a file like metrics.csv, by their steps."""
    steps: dict[int, dict[str, float]] = {}
    for step, split, metric, value in csv.reader(text.splitlines()[1:]):
        steps.setdefault(int(step), {})[f"{split}/{metric}"] = float(value)
    return sorted(steps.items())


def _chosen(path: str) -> dict[str, Any]:
    """The settings that a sweep has chosen, by their dotted keys, as W&B's plots of it look for them."""
    with suppress(OSError, yaml.YAMLError):
        chosen = yaml.safe_load(Path(path).read_text())
        return {key: item["value"] for key, item in chosen.items() if isinstance(item, dict) and "value" in item}
    return {}


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _serve(worker: Worker, source: int) -> None:
    """Do what is told, and look about once a second, until there is nobody to tell it."""
    inbox: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def read() -> None:
        with open(source) as file, suppress(ValueError):  # the last line of a command that was killed
            for line in file:
                inbox.put(json.loads(line))
        inbox.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            if (message := inbox.get(timeout=worker.pause)) is None:
                return worker.close()
            worker.watch(message)
        except queue.Empty:
            worker.look()


def main() -> None:
    """The mirror process, quiet and of low priority, until its command closes the pipe or ends."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):  # SLURM sends them to every process of a job
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    os.nice(10)
    source, answers, null = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)  # W&B has nobody to ask, and nobody to tell

    def tell(line: str) -> None:
        with suppress(OSError):  # the command was killed
            os.write(answers, f"{line}\n".encode())

    agent = {key: os.environ.pop(key) for key in AGENT if key in os.environ}  # else each run would be the agent's
    agent = agent if {"WANDB_SWEEP_ID", "WANDB_RUN_ID"} <= agent.keys() else {}
    os.environ.pop("WANDB_SERVICE", None)  # of the command's own W&B, with its settings
    mode, project, folder, experiment = sys.argv[1:]
    worker = Worker(mode, project, Path(folder), experiment, tell, agent)
    os.environ |= TIMEOUTS | dict(os.environ) | {f"WANDB_{key}": value for key, value in QUIET.items()}
    os.environ |= {"WANDB_DATA_DIR": str(worker.root), "WANDB_CACHE_DIR": str(worker.root / "cache")}  # of artifacts
    try:
        _serve(worker, source)
    except Exception as error:
        tell(f"the mirror has ended ({_line(error)})")
        raise


if __name__ == "__main__":
    main()
