"""W&B mirrors what is written locally: nothing is read back from it, and no training waits for it.

This is the side of the command that trains. The mirror is a process of its own beside it (`mirror_process.py`), which
reads on the disk what there is to send. It is told what to watch in JSON lines on its stdin, until EOF: an object with

    run id: {"name": .., "tags": [..]} or {}            a run, to be mirrored when it is finished
    run id: {.., "records": path, "config": {..}}       one that may be seen while it trains, too
    run id: {"artifact": name, "files": [path, ..]}     what was made of the runs

and has a line on its stdout for the user where there is trouble.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from experiments.engine.expand import Group
from experiments.engine.mirror_process import mirrored
from experiments.engine.store import RunStore
from experiments.engine.words import Called

PATIENCE = 60.0  # seconds that a command waits for its mirror in the end


class Mirror:
    """The mirror of an experiment. No method waits for it (but `close`, for a while) or fails because of it."""

    def __init__(self, command: Sequence[str], folder: Path, experiment: str) -> None:
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        # A session of its own: a Ctrl-C in the terminal is for the training; what follows from it comes by EOF.
        # Unbuffered: a daemon thread that holds the lock of a buffer would abort Python at its exit.
        options: dict[str, Any] = {"env": {**os.environ, "PYTHONPATH": path}, "start_new_session": True, "bufsize": 0}
        options |= {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process: subprocess.Popen[bytes] = subprocess.Popen(command, **options)
        self._folder, self._experiment = folder, experiment
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._runs: set[str] = set()
        self._listener = threading.Thread(target=self._listen, args=[self._process.stdout], daemon=True)
        self._listener.start()
        threading.Thread(target=self._send, args=[self._process.stdin], daemon=True).start()

    @classmethod
    def start(cls, *, mode: str, project: str, folder: Path, experiment: str) -> "Mirror | None":
        """The mirror of an experiment in `folder` = outputs/<experiment>; None if there is to be none."""
        if mode == "disabled":
            return None
        folder = folder.absolute()
        command = [sys.executable, "-P", "-m", "experiments.engine.mirror_process"]
        try:
            return cls([*command, str(mode), project, str(folder), experiment], folder, experiment)
        except OSError as error:
            _say(f"nothing is mirrored, its process does not start ({type(error).__name__}: {error})")
            return None

    def watch(self, run_ids: Iterable[str], live: Sequence[Group] = (), called: Mapping[str, Called] = {}) -> None:
        """Mirror these runs, each as soon as its directory is finished; online, those of `live` while they train.

        `called` is what they are called there (`words.called`), else by their ids.
        """
        runs: dict[str, dict[str, Any]] = {run_id: {**called.get(run_id, {})} for run_id in run_ids}
        for group in live:
            records, (run,) = RunStore(self._folder).records(group.id), group.runs
            runs.setdefault(run.id, {}).update(records=str(records), config=run.config)
        self._runs.update(runs)
        self._queue.put(runs)

    def artifact(self, name: str, scale: str, files: Sequence[Path]) -> None:
        """What was made of the runs, tables and pictures, under `name`."""
        paths = [str(Path(file).absolute()) for file in files]
        self._queue.put({f"{self._experiment}-{scale!s}-results": {"artifact": name, "files": paths}})

    def close(self, patience: float = PATIENCE) -> None:
        """Let it end with what is finished; after `patience` seconds, or a Ctrl-C, end it and say what is missing."""
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
            count = sum(mirrored(self._folder, run_id) for run_id in self._runs)
            _say(f"{count} of {len(self._runs)} runs are mirrored ({why}); the same command mirrors the rest")

    def __enter__(self) -> "Mirror":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self.close(5.0 if error is KeyboardInterrupt else PATIENCE)

    def _send(self, pipe: IO[bytes]) -> None:
        for message in iter(self._queue.get, None):
            with suppress(OSError, ValueError, TypeError):  # it has ended, or cannot be told this: `close` says so
                rest = memoryview(json.dumps(message, default=str).encode() + b"\n")
                while rest:
                    rest = rest[pipe.write(rest) :]
        with suppress(OSError):
            pipe.close()

    def _listen(self, pipe: IO[bytes]) -> None:
        with suppress(OSError, ValueError):
            for line in pipe:
                _say(line.decode().strip())


def _say(line: str) -> None:
    from tqdm import tqdm

    tqdm.write(f"W&B: {line}", file=sys.stderr)  # above the progress bar, if there is one
