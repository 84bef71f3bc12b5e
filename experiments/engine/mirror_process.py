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
SPARE = 1 << 16  # bytes, above what a write of W&B may have found no room for
# Nothing but our records: a run then costs a hundredth of a second. Seconds: less than `mirror.PATIENCE`.
ON = ["disable_code", "disable_git", "disable_job_creation", "finish_timeout_raises", "quiet", "silent"]
ON += ["x_disable_machine_info", "x_disable_meta", "x_disable_stats"]
OFF = ["save_code", "symlink", "use_dot_wandb", "x_save_requirements"]
QUIET = {"console": "off"} | dict.fromkeys(ON, True) | dict.fromkeys(OFF, False)
TIMEOUTS = {"init_timeout": 20.0, "finish_timeout": 45.0}  # WANDB_INIT_TIMEOUT etc. go first
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
    tell: Callable[..., None]  # an answer to the command
    agent: dict[str, str]  # the variables of `AGENT`, if there is one
    pause: float = 0.0  # seconds until the next look
    swept: str = ""  # the run that stands for the agent's
    watched: dict[str, None] = field(default_factory=dict)  # runs, in their order
    seen: dict[str, dict[str, Any]] = field(default_factory=dict)  # those to be seen live: their `records`, `config`
    live: dict[str, Live] = field(default_factory=dict)
    written: dict[str, tuple[Path, int]] = field(default_factory=dict)  # offline, not in place yet; with their stamp
    mirrored: dict[str, int] = field(default_factory=dict)  # run -> the `_stamp` of what was mirrored
    failed: dict[str, str] = field(default_factory=dict)  # run -> why
    lost: list[Exception] = field(default_factory=list)  # what went wrong in W&B while online

    @property
    def root(self) -> Path:
        return self.folder / "wandb"

    def obey(self, message: dict[str, Any]) -> None:
        match message:
            case {"watch": ids, "live": seen}:
                self.watched |= dict.fromkeys(ids)
                self.seen |= seen
                if self.agent and len(ids) == 1:
                    self.swept = self.swept or ids[0]
            case {"artifact": name, "scale": scale, "files": files}:
                run_id = f"{self.experiment}-{scale}-results"
                task = run_id, partial(self._artifact, run_id, name, [Path(file) for file in files])
                if not self._do([task]):
                    self._do([task])  # offline
                if run_id in self.failed:
                    self.tell(problem=f"{name} is not mirrored ({self.failed.pop(run_id)})")

    # ---- what there is to do

    def look(self, last: bool = False) -> None:
        """Send what has come since the last time; the last look also tries again what did not work."""
        began = time.monotonic()
        tasks = [(run_id, task) for run_id in self.watched if (task := self._task(run_id, last))]
        self.pause = min(max(1.0, 20 * (time.monotonic() - began)), 10.0)  # a slow disk is not kept busy by looking
        if not self._do(tasks):
            self.look(last)
        if not last and self.watched.keys() - self.mirrored.keys() - self.failed.keys():
            with suppress(Exception):
                importlib.import_module("wandb")  # a second's work that need not wait for the end

    def _task(self, run_id: str, last: bool) -> Callable[[], None] | None:
        """What is to be done for a run now, if anything."""
        seen = self.seen.get(run_id) if self.mode == "online" else None
        # This order: the file goes when the directory is finished, so that one without both is interrupted.
        records = _modified(Path(seen["records"])) if seen else 0
        stamp = _stamp(self.folder / "runs" / run_id)
        if run_id in self.failed and not last:
            return None
        if (live := self.live.get(run_id)) and stamp <= live.since:
            return partial(self._follow if records else self._interrupt, run_id)
        if seen and not live and records > stamp:  # it trains, after it has failed perhaps
            return None if last else partial(self._begin, run_id, stamp)
        if run_id not in self.mirrored and run_id != self.swept and 0 < stamp <= _modified(self._marker(run_id)):
            self._count(run_id, stamp)
        return partial(self._mirror, run_id, stamp) if self.mirrored.get(run_id, 0) < stamp else None

    def _do(self, tasks: Sequence[tuple[str, Callable[[], None]]]) -> bool:
        """Do this for these runs; False if W&B is no longer online because of it, and what is left is to be done anew.

        What is written offline is then put into its place: its last bytes come when W&B ends.
        """
        for k in range(0, len(tasks), BATCH):
            with ThreadPoolExecutor(AT_ONCE if self.mode == "online" else 1) as pool:
                list(pool.map(self._try, *zip(*tasks[k : k + BATCH], strict=True)))
            if self.mode == "online" and self.lost:
                self._fall_back(self.lost[0])
                return False
            if self.written:
                _end_wandb()
            while self.written:
                run_id, (written, stamp) = self.written.popitem()
                self._try(run_id, partial(self._put, run_id, written, stamp))
        return True

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
            self.tell(problem=f"not online ({_line(error)}); runs are kept for: wandb sync {self.root}")
            with suppress(Exception, SystemExit):
                _end_wandb()  # to W&B's own process, a run that could not begin is in use for ever

    def close(self) -> None:
        self.look(last=True)
        for run_id in list(self.live):
            with suppress(Exception):
                self._interrupt(run_id)
        if self.failed:
            reason = next(iter(self.failed.values()))
            what = f"{len(self.failed)} of {len(self.watched)} runs are not mirrored ({reason})"
            self.tell(problem=f"{what}; the same command mirrors them")

    # ---- a run

    def _begin(self, run_id: str, stamp: int) -> None:
        config = self.seen[run_id]["config"] | {"provenance": {"id": run_id}}
        with self._sending():
            self.live[run_id] = Live(self._open(run_id, config, resume="allow"), stamp)
        self._follow(run_id)

    def _follow(self, run_id: str) -> None:
        """Send a step when the next one has come, for a run to be resumed with whole steps; of lines, whole ones."""
        text = ""
        with suppress(OSError):  # it has just gone
            text = Path(self.seen[run_id]["records"]).read_text()
        steps = _steps(text[: text.rfind("\n") + 1])
        with self._sending():
            self.live[run_id].send(steps[:-1])

    def _interrupt(self, run_id: str) -> None:
        with self._sending():
            self.live.pop(run_id).run.finish(exit_code=1)

    def _mirror(self, run_id: str, stamp: int) -> None:
        """A finished run: all of it, or what is left to be sent."""
        place = self.folder / "runs" / run_id
        config = yaml.load((place / "config.yaml").read_text(), Loader=Loader)
        facts = json.loads((place / "run.json").read_text())
        status = facts["status"]
        provenance = {key: facts[key] for key in facts if key not in ("experiment", "scale", "status", "group")}
        steps = _steps((place / "metrics.csv").read_text())
        with self._sending():
            if live := self.live.get(run_id):
                live.run.config.update({"provenance": provenance}, allow_val_change=True)
            else:
                live = Live(self._open(run_id, config | {"provenance": provenance}))
            live.send(steps)
            self._finish(run_id, live.run, status, stamp)

    def _finish(self, run_id: str, run: Any, status: str, stamp: int) -> None:
        run.summary.update({"status": status})
        run.finish(exit_code=int(status == "failed"))
        self.live.pop(run_id, None)
        if self.mode == "offline":
            self.written[run_id] = Path(run.dir).parent, stamp
        else:
            self._done(run_id, stamp)

    def _put(self, run_id: str, written: Path, stamp: int) -> None:
        """Put what was written offline in place of an earlier one, provided that the disk had room for it.

        W&B leaves out what there is no room for without a word, and all that comes after it.
        """
        room = written / "room"
        try:
            room.write_bytes(bytes((written / f"run-{run_id}.wandb").stat().st_size + SPARE))
        except OSError as error:
            raise OSError(f"what W&B has written in {self.root} may not be whole: {error.strerror}") from None
        room.unlink()
        for of_no_use in (written / "logs", written / "tmp", *self.root.glob(f"offline-run-*-{run_id}")):
            shutil.rmtree(of_no_use, ignore_errors=True)
        written.rename(self.root / written.name)
        self._done(run_id, stamp)

    def _done(self, run_id: str, stamp: int) -> None:
        """Mark it with the time of what was mirrored: the clock of the machine that trains may be another."""
        marker = self._marker(run_id)
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
        os.utime(marker, ns=(stamp, stamp))
        if run_id in self.watched:
            self._count(run_id, stamp)

    def _count(self, run_id: str, stamp: int) -> None:
        self.mirrored[run_id] = stamp
        self.tell(mirrored=len(self.mirrored))

    def _marker(self, run_id: str) -> Path:
        return self.root / "mirrored" / run_id

    # ---- figures and tables

    def _artifact(self, run_id: str, name: str, files: Sequence[Path]) -> None:
        """The files as an artifact, with the pictures among them to be seen; nothing if they are mirrored already."""
        stamp = max(file.stat().st_mtime_ns for file in files)
        if stamp <= _modified(self._marker(run_id)):
            return
        with self._sending():
            import wandb

            run = self._open(run_id, {}, job_type="results", resume="allow")
            artifact = wandb.Artifact(name, type="results")
            for file in files:
                artifact.add_file(str(file), skip_cache=True)
            run.log_artifact(artifact)
            with suppress(ImportError):  # of Pillow
                run.log({file.stem: wandb.Image(str(file)) for file in files if file.suffix == ".png"})
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
        settings = self._quiet()
        if run_id == self.swept:  # the agent's run has an id of its own, and no past
            options = {"id": self.agent["WANDB_RUN_ID"], "project": os.environ.get("WANDB_PROJECT", self.project)}
            settings["sweep_id"] = self.agent[
                "WANDB_SWEEP_ID"
            ]  # for this run only: in `setup`, W&B would ignore its id
            config = config | _chosen(self.agent.get("WANDB_SWEEP_PARAM_PATH", ""))
        options |= {"name": run_id, "group": self.experiment, "job_type": job_type, "config": config}
        options |= {"mode": self.mode, "dir": str(folder), "reinit": "create_new"}
        return wandb.init(**options, settings=wandb.Settings(**settings))

    def _quiet(self) -> dict[str, Any]:
        """The settings of all runs, for which W&B is set up: it starts a process of its own the first time."""
        import wandb

        most = {key: float(os.environ.get(f"WANDB_{key.upper()}", value)) for key, value in TIMEOUTS.items()}
        settings: dict[str, Any] = {"mode": self.mode} | QUIET | most
        known = getattr(wandb.Settings, "model_fields", settings)  # the private ones come and go
        quiet = {key: value for key, value in settings.items() if key in known}
        wandb.setup(wandb.Settings(**quiet))
        return quiet


def _end_wandb() -> None:
    import wandb

    wandb.teardown(exit_code=1)  # of runs that are open, if any: they are interrupted


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


def _inbox(source: int) -> "queue.SimpleQueue[dict[str, Any] | None]":
    """The messages of the command as they come, and None when there will be no more."""
    inbox: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def read() -> None:
        with open(source) as file, suppress(ValueError):  # the last line of a command that was killed
            for line in file:
                inbox.put(json.loads(line))
        inbox.put(None)

    threading.Thread(target=read, daemon=True).start()
    return inbox


def _serve(worker: Worker, inbox: "queue.SimpleQueue[dict[str, Any] | None]") -> None:
    """Do what is told, and look about once a second, until there is nobody to tell it."""
    while True:
        try:
            message = inbox.get(timeout=worker.pause)
        except queue.Empty:
            worker.look()
        else:
            if message is None:
                return worker.close()
            worker.obey(message)


def main() -> None:
    """The mirror process, quiet and of low priority, until its command closes the pipe or ends."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):  # SLURM sends them to every process of a job
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    os.nice(10)
    source, answers, null = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)  # W&B has nobody to ask, and nobody to tell

    def tell(**answer: object) -> None:
        with suppress(OSError):  # the command was killed
            os.write(answers, json.dumps(answer).encode() + b"\n")

    agent = {key: os.environ.pop(key) for key in AGENT if key in os.environ}  # else each run would be the agent's
    agent = agent if {"WANDB_SWEEP_ID", "WANDB_RUN_ID"} <= agent.keys() else {}
    os.environ.pop("WANDB_SERVICE", None)  # of the command's own W&B, with its settings
    mode, project, folder, experiment = sys.argv[1:]
    worker = Worker(mode, project, Path(folder), experiment, tell, agent)
    os.environ |= {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
    os.environ |= {"WANDB_DATA_DIR": str(worker.root), "WANDB_CACHE_DIR": str(worker.root / "cache")}  # of artifacts
    try:
        _serve(worker, _inbox(source))
    except Exception as error:
        tell(problem=f"the mirror has ended ({_line(error)})")
        raise


if __name__ == "__main__":
    main()
