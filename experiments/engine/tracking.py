"""W&B mirrors what is written locally: nothing is read back from it, and no training waits for it.

The mirror is a process of its own beside the command that trains, `python -m experiments.engine.tracking`. It uploads
finished runs from outputs/<experiment>/runs/<id>, wherever they were trained, and is sent the records of a run that is
to be seen while it trains. It takes JSON lines on stdin until EOF:

    {"mode": "offline" or "online", "project": .., "folder": "outputs/<experiment>", "experiment": ..}     the first one
    {"watch": [id, ..]}                                 mirror these runs, each whole, as soon as they are finished
    {"begin": id, "config": {..}}                       a run that trains now; online only, offline it is watched
    {"log": id, "steps": [[step, {key: value}], ..]}
    {"end": id, "status": "done", "nan" or "failed"}
    {"artifact": name, "scale": .., "files": [path, ..]}

and answers on stdout with {"mirrored": how many runs so far} and {"problem": one line for the user}. All it keeps is in
outputs/<experiment>/wandb: `offline-run-*`, one for each run, for `wandb sync`; `mirrored/<id>`, so that a run is
mirrored again only when it was trained again; and what W&B keeps itself.
"""

import csv
import json
import os
import queue
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from experiments.engine.expand import Group

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml: ten times faster

Row = tuple[int, str, str, list[float]]  # step, split, metric, one value per replica
Steps = list[tuple[int, dict[str, float]]]  # ascending, each with its values by split/metric

AT_ONCE = 8  # runs that are uploaded at a time: each waits for the server a second or two
PATIENCE = 60.0  # seconds that a command waits for its mirror in the end
# Nothing but our records: a run then costs a hundredth of a second.
QUIET = {
    "console": "off", "disable_code": True, "disable_git": True, "disable_job_creation": True,
    "finish_timeout_raises": True, "quiet": True, "save_code": False, "silent": True, "symlink": False,
    "use_dot_wandb": False, "x_disable_machine_info": True, "x_disable_meta": True, "x_disable_stats": True,
    "x_save_requirements": False,
}  # fmt: skip
TIMEOUTS = {"init_timeout": 20.0, "finish_timeout": PATIENCE - 15}  # seconds; WANDB_INIT_TIMEOUT etc. go first
AGENT = ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH")  # what `wandb agent` tells the program it starts


class Mirror:
    """The training side of the mirror. No method waits for it (but `close`, for a while) or fails because of it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._runs: set[str] = set()
        self._mirrored = 0
        self._closed = False
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        threading.Thread(target=self._send, daemon=True).start()

    @classmethod
    def start(cls, *, mode: str, project: str, folder: Path, experiment: str) -> "Mirror | None":
        """The mirror of an experiment in `folder` = outputs/<experiment>; None if there is to be none."""
        if mode == "disabled":
            return None
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        try:  # a session of its own: a Ctrl-C in the terminal is for the training; what follows from it comes by EOF
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "experiments.engine.tracking"], env={**os.environ, "PYTHONPATH": path},
                bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            _say(f"nothing is mirrored, its process does not start ({_line(error)})")
            return None
        mirror = cls(process)
        mirror._queue.put({"mode": str(mode), "project": project, "folder": str(folder.absolute()),
                           "experiment": experiment})  # fmt: skip
        return mirror

    def watch(self, run_ids: Iterable[str], live: Sequence[Group] = ()) -> None:
        """Mirror these runs, each as soon as its directory is finished."""
        ids = list(run_ids)
        self._runs.update(ids)
        self._queue.put({"watch": ids})

    def begin(self, run_id: str, config: dict[str, Any]) -> None:
        """A run trains from now on, or again: its records follow, all that it has to begin with."""
        self._runs.add(run_id)
        self._queue.put({"begin": run_id, "config": config})

    def log(self, run_id: str, rows: Iterable[Row], replica: int = 0) -> None:
        """Records of a run that has begun, in order of their steps."""
        self._queue.put({"log": run_id, "steps": _by_step((*row[:3], row[3][replica]) for row in rows)})

    def end(self, run_id: str, status: str) -> None:
        """A run that has begun has ended, and its directory is finished. Without, it counts as interrupted."""
        self._queue.put({"end": run_id, "status": str(status)})

    def artifact(self, name: str, scale: str, files: Sequence[Path]) -> None:
        """What was made of the runs, tables and pictures, under `name`."""
        paths = [str(Path(file).absolute()) for file in files]
        self._queue.put({"artifact": name, "scale": str(scale), "files": paths})

    def close(self, patience: float = PATIENCE) -> None:
        """Let it end with what is finished; after `patience` seconds, or a Ctrl-C, end it and say what is missing."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        why = ""
        try:
            if code := self._process.wait(patience):
                why = f"its process has ended with exit code {code}"
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            why = f"there was no more time, {patience:.0f} s"
            self._process.kill()  # SIGTERM would not reach a stopped one
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)
        self._listener.join(1.0)
        if why:
            _say(f"{self._mirrored} of {len(self._runs)} runs are mirrored ({why}); the same command mirrors the rest")

    def __enter__(self) -> "Mirror":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self.close(5.0 if error is KeyboardInterrupt else PATIENCE)

    # The pipes are unbuffered: a daemon thread that holds the lock of a buffer would abort Python at its exit.

    def _send(self) -> None:
        for message in iter(self._queue.get, None):
            with suppress(OSError, ValueError, TypeError):  # it has ended, or cannot be told this: `close` says so
                rest = memoryview(json.dumps(message, default=str).encode() + b"\n")
                while rest:
                    rest = rest[self._process.stdin.write(rest) :]
        with suppress(OSError):
            self._process.stdin.close()

    def _listen(self) -> None:
        with suppress(OSError, ValueError):
            for line in self._process.stdout:
                answer = json.loads(line)
                self._mirrored = answer.get("mirrored", self._mirrored)
                if "problem" in answer:
                    _say(answer["problem"])


def _say(line: str) -> None:
    from tqdm import tqdm

    tqdm.write(f"W&B: {line}", file=sys.stderr)  # above the progress bar, if there is one


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _by_step(rows: Iterable[tuple[int, str, str, float]]) -> Steps:
    steps: dict[int, dict[str, float]] = {}
    for step, split, metric, value in rows:
        steps.setdefault(int(step), {})[f"{split}/{metric}"] = float(value)
    return sorted(steps.items())


# ---- the process -----------------------------------------------------------------------------------------------------


class _Live:
    """A run that trains now. A step goes to W&B when the next one comes, for a run to be resumed with whole steps."""

    def __init__(self, run: Any) -> None:
        self.run, self.step, self.values = run, run.starting_step, {}

    def log(self, step: int, values: dict[str, float]) -> None:
        """A step that W&B has, from before the run was resumed, is left out."""
        if step > self.step:
            self.flush()
            self.step = step
        if step == self.step:
            self.values |= values

    def flush(self) -> None:
        if self.values:
            self.run.log(self.values, step=self.step)
            self.values = {}


class _Worker:
    """What the mirror process knows and does; `tell` answers the parent, `agent` holds the variables of `AGENT`."""

    def __init__(self, header: dict[str, str], tell: Callable[..., None], agent: dict[str, str]) -> None:
        self.mode, self.project, self.experiment = (header[key] for key in ("mode", "project", "experiment"))
        self.folder, self.tell, self.agent = Path(header["folder"]), tell, agent
        self.root = self.folder / "wandb"
        self.waiting: dict[str, None] = {}  # the runs that are watched, in their order
        self.live: dict[str, _Live] = {}
        self.mirrored: dict[str, int] = {}  # run -> the `_stamp` of what was mirrored
        self.failed: dict[str, str] = {}  # run -> why
        self.lost: list[Exception] = []  # what went wrong in W&B while online
        self.swept = ""  # the run that stands for the agent's
        os.environ["WANDB_DATA_DIR"] = str(self.root)  # of artifacts, until they are uploaded
        os.environ["WANDB_CACHE_DIR"] = str(self.root / "cache")

    def obey(self, message: dict[str, Any]) -> None:
        match message:
            case {"watch": ids}:
                self.waiting |= dict.fromkeys(ids)
                if self.agent and len(ids) == 1:
                    self.swept = ids[0]
            case {"begin": run_id, "config": config} if run_id not in self.live:
                self._begin(run_id, config)
            case {"log": run_id, "steps": steps} if run_id in self.live:
                self._trying(run_id, lambda live: [live.log(step, values) for step, values in steps])
            case {"end": run_id, "status": status} if run_id in self.live:
                self._trying(run_id, lambda live: self._end(run_id, live, status))
            case {"artifact": name, "scale": scale, "files": files}:
                self._artifact(name, f"{self.experiment}-{scale}-results", [Path(file) for file in files])

    # ---- finished runs

    def look(self, last: bool = False) -> None:
        """Mirror what has finished since the last time; the last look also tries again what did not work."""
        ready, training = {}, False
        for run_id in self.waiting:
            stamp = _stamp(self.folder / "runs" / run_id)
            training |= not stamp
            if not stamp or (run_id in self.failed and not last):
                continue
            if run_id not in self.mirrored and run_id != self.swept and self._marker(run_id) >= stamp:
                self._done(run_id, stamp)
            if self.mirrored.get(run_id, 0) < stamp:
                ready[run_id] = stamp
        if self.mode == "online" and ready:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(self._mirror, ready, ready.values()))
            if self.lost:
                self._fall_back(self.lost[0])
        if self.mode == "offline":
            for run_id, stamp in ready.items():
                if self.mirrored.get(run_id, 0) < stamp:
                    self._mirror(run_id, stamp)
        if training and not last and "wandb" not in sys.modules:
            with suppress(Exception):
                self._quiet()  # a second's work that need not wait for the end

    def _mirror(self, run_id: str, stamp: int) -> None:
        place = self.folder / "runs" / run_id
        try:
            config = yaml.load((place / "config.yaml").read_text(), Loader=Loader)
            status, facts = _facts(place)
            with (place / "metrics.csv").open(newline="") as file:
                steps = _by_step(csv.reader(file.readlines()[1:]))
            self._upload(run_id, config | {"provenance": facts}, steps, status)
            self._mark(run_id, stamp)
        except Exception as error:
            self.failed[run_id] = _line(error)
        else:
            self.failed.pop(run_id, None)
            self._done(run_id, stamp)

    def _upload(self, run_id: str, config: dict[str, Any], steps: Steps, status: str) -> None:
        if self.mode == "online" and self.lost:
            raise self.lost[0]  # to be mirrored offline, in its turn
        try:
            run = self._open(run_id, config)
            for step, values in steps:
                run.log(values, step=step)
            self._finish(run, status, len(steps))
        except Exception as error:
            self.lost.append(error)
            raise

    def _done(self, run_id: str, stamp: int) -> None:
        self.mirrored[run_id] = stamp
        self.tell(mirrored=len(self.mirrored))

    def _marker(self, name: str) -> int:
        with suppress(OSError):
            return (self.root / "mirrored" / name).stat().st_mtime_ns
        return 0

    def _mark(self, name: str, stamp: int) -> None:
        """The marker has the time of what was mirrored: the clock of the machine that trains may be another."""
        marker = self.root / "mirrored" / name
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
        os.utime(marker, ns=(stamp, stamp))

    # ---- a run while it trains

    def _begin(self, run_id: str, config: dict[str, Any]) -> None:
        self.swept = self.swept or (run_id if self.agent else "")
        self.waiting[run_id] = None
        if self.mode == "online":
            try:
                run = self._open(run_id, config | {"provenance": {"id": run_id}}, resume="allow")
            except Exception as error:
                self._fall_back(error)
            else:
                del self.waiting[run_id]
                self.live[run_id] = _Live(run)

    def _trying(self, run_id: str, act: Callable[[_Live], Any]) -> None:
        """A run that can no more be seen while it trains is mirrored when it is finished."""
        try:
            act(self.live[run_id])
        except Exception as error:
            self.live.pop(run_id, None)
            self.waiting[run_id] = None
            self._fall_back(error)

    def _end(self, run_id: str, live: _Live, status: str) -> None:
        place = self.folder / "runs" / run_id
        live.flush()
        if stamp := _stamp(place):
            live.run.config.update({"provenance": _facts(place)[1]}, allow_val_change=True)
        self._finish(live.run, status)
        del self.live[run_id]
        if stamp:
            self._mark(run_id, stamp)
        self._done(run_id, stamp)

    # ---- figures and tables

    def _artifact(self, name: str, run_id: str, files: list[Path]) -> None:
        """The files as an artifact, with the pictures among them to be seen; nothing if they are mirrored already."""

        def upload() -> None:
            import wandb

            run = self._open(run_id, {}, job_type="results", resume="allow")
            artifact = wandb.Artifact(name, type="results")
            for file in files:
                artifact.add_file(str(file), skip_cache=True)
            run.log_artifact(artifact)
            pictures = {}
            with suppress(ImportError):  # of Pillow
                pictures = {file.stem: wandb.Image(str(file)) for file in files if file.suffix == ".png"}
            if pictures:
                run.log(pictures)
            self._finish(run, "done", len(pictures) > 0)

        try:
            stamp = max((file.stat().st_mtime_ns for file in files), default=0)
            if stamp > self._marker(run_id):
                try:
                    upload()
                except Exception as error:
                    if self.mode == "offline":
                        raise
                    self._fall_back(error)
                    upload()
                self._mark(run_id, stamp)
        except Exception as error:
            self.tell(problem=f"{name} is not mirrored ({_line(error)})")

    # ---- W&B

    def _fall_back(self, error: Exception) -> None:
        """From now on nothing is sent: what cannot be online is kept."""
        if self.mode == "online":
            self.mode = "offline"
            if not isinstance(error, ImportError):  # without W&B nothing is kept either, and `close` says so
                self.tell(problem=f"not online ({_line(error)}); runs are kept for: wandb sync {self.root}")
                if not self.live:
                    import wandb

                    with suppress(Exception, SystemExit):
                        wandb.teardown()  # to W&B's own process, a run that could not begin is in use for ever

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
        options, sweep = {"id": run_id, "project": self.project, "resume": resume}, {}
        if run_id == self.swept:  # the agent's run has an id of its own, and no past
            options = {"id": self.agent["WANDB_RUN_ID"], "project": os.environ.get("WANDB_PROJECT", self.project)}
            sweep = {"sweep_id": self.agent["WANDB_SWEEP_ID"]}  # for this run only: in `setup`, W&B would ignore its id
            config = config | _chosen(self.agent.get("WANDB_SWEEP_PARAM_PATH", ""))
        return wandb.init(
            **options, name=run_id, group=self.experiment, job_type=job_type, config=config, mode=self.mode,
            dir=str(folder), reinit="create_new", settings=wandb.Settings(**self._quiet(), **sweep),
        )  # fmt: skip

    def _quiet(self) -> dict[str, Any]:
        """The settings of all runs, for which W&B is set up: it starts a process of its own the first time."""
        import wandb

        settings = QUIET | {key: float(os.environ.get(f"WANDB_{key.upper()}", most)) for key, most in TIMEOUTS.items()}
        known = getattr(wandb.Settings, "model_fields", settings)  # the private ones come and go
        quiet = {key: value for key, value in settings.items() if key in known}
        wandb.setup(wandb.Settings(mode=self.mode, **quiet))
        return quiet

    def _finish(self, run: Any, status: str, steps: int = 0) -> None:
        """End a W&B run; if it is offline, put it in place of an earlier one, provided that it has all its steps."""
        run.summary.update({"status": status})
        written = Path(run.dir).parent
        run.finish(exit_code=int(status == "failed"))
        if written.parent != self.root:
            late = time.monotonic() + 1.0
            while not _is_whole(written / f"run-{run.id}.wandb", steps):  # its last bytes come some milliseconds later
                if time.monotonic() > late:
                    raise OSError(f"what W&B has written in {self.root} is not whole: is the disk full?")
                time.sleep(0.005)
            for of_no_use in (written / "logs", written / "tmp", *self.root.glob(f"offline-run-*-{run.id}")):
                shutil.rmtree(of_no_use, ignore_errors=True)
            written.rename(self.root / written.name)

    def close(self) -> None:
        self.look(last=True)
        for live in self.live.values():  # interrupted
            with suppress(Exception):
                live.run.finish(exit_code=1)
        if self.failed:
            reason = next(iter(self.failed.values()))
            self.tell(problem=f"{len(self.failed)} of {len(self.waiting)} runs are not mirrored ({reason}); "
                              "the same command mirrors them")  # fmt: skip


def _stamp(place: Path) -> int:
    """When a run was finished, in nanoseconds; 0 if it is not. Trained again, it leaves `done` as it was."""
    with suppress(OSError):
        return max((place / name).stat().st_mtime_ns for name in ("done", "run.json"))
    return 0


def _facts(place: Path) -> tuple[str, dict[str, Any]]:
    """The status of a finished run, and where its numbers come from."""
    run = json.loads((place / "run.json").read_text())
    return run["status"], {key: run[key] for key in run if key not in ("experiment", "scale", "status", "group")}


def _chosen(path: str) -> dict[str, Any]:
    """The settings that a sweep has chosen, by their dotted keys, as W&B's plots of it look for them."""
    with suppress(OSError, yaml.YAMLError):
        chosen = yaml.safe_load(Path(path).read_text())
        return {key: item["value"] for key, item in chosen.items() if isinstance(item, dict) and "value" in item}
    return {}


def _is_whole(file: Path, steps: int) -> bool:
    """Whether a .wandb file has so many steps and an end: where the disk is full, W&B leaves records out silently.

    It is a LevelDB log: blocks of 32 KiB, records in parts of (crc, length, 1 if whole, or 2, 3, .., 4) and bytes.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, record, found, kind = file.read_bytes(), 7, b"", 0, None
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, part = struct.unpack_from("<HB", data, at + 4)
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if at > len(data):
            break
        if part in (1, 4):
            kind = Record.FromString(record).WhichOneof("record_type")
            found += kind == "history"
            record = b""
    return kind == "exit" and found == steps


def _messages(source: int) -> Iterator[dict[str, Any] | None]:
    """The messages of the parent, and None whenever it is time to look, about once a second; until EOF."""
    inbox: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def read() -> None:
        with open(source) as file, suppress(ValueError):  # the last line of a parent that was killed
            for line in file:
                inbox.put(json.loads(line))
        inbox.put(None)

    threading.Thread(target=read, daemon=True).start()
    due = time.monotonic()
    while True:
        if (left := due - time.monotonic()) > 0:
            with suppress(queue.Empty):
                if (message := inbox.get(timeout=left)) is None:
                    return
                yield message
        else:
            began = time.monotonic()
            yield None
            took = time.monotonic() - began
            due = began + took + min(max(1.0, 20 * took), 10.0)  # a slow disk is not kept busy by looking


def main() -> None:
    """The mirror process, quiet and of low priority, until its parent closes the pipe or ends."""
    for name in (
        "SIGINT",
        "SIGTERM",
        "SIGHUP",
        "SIGUSR1",
        "SIGUSR2",
    ):  # SLURM, too, sends them to every process of a job
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    os.nice(10)
    source, answers, null = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)  # W&B has nobody to ask, and nobody to tell

    def tell(**answer: object) -> None:
        with suppress(OSError):  # the parent was killed
            os.write(answers, json.dumps(answer).encode() + b"\n")

    agent = {key: os.environ.pop(key) for key in AGENT if key in os.environ}  # else each run would be the agent's
    agent = agent if {"WANDB_SWEEP_ID", "WANDB_RUN_ID"} <= agent.keys() else {}
    os.environ.pop("WANDB_SERVICE", None)  # of the parent's own W&B, with its settings
    os.environ |= {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
    worker = None
    try:
        for message in _messages(source):
            if worker and message:
                worker.obey(message)
            elif worker:
                worker.look()
            elif message:
                worker = _Worker(message, tell, agent)
        if worker:
            worker.close()
    except Exception as error:
        tell(problem=f"the mirror has ended ({_line(error)})")
        raise


if __name__ == "__main__":
    main()
