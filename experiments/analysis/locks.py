"""Who works on what, on a disk that several processes and machines share."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

from experiments.analysis.results import ResultsError


@contextmanager
def hold(path: Path, patience: float = 1.0) -> Iterator[bool]:
    """Hold the file `path` against all other processes, here and on other machines; False where another one does.

    `patience` is how long to wait for it, in seconds; not 0, since `holder` tries the lock for a moment.

    The lock is the operating system's (flock), which ends with the process that holds it, however that ends, and on NFS
    with the connection of its machine: nobody dead holds anything, and there is no time limit to guess. (Where a disk
    has no flock, filelock leaves a file that says who holds it, and breaks the lock of a process that is gone.)

    Raises: ResultsError for a place that cannot be written.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=patience, poll_interval=0.05)
    except Timeout:
        yield False
        return
    except OSError as error:
        raise ResultsError(f"cannot write {path.name} in {path.parent}: {error.strerror or error}") from error
    try:
        job = f", SLURM job {os.environ['SLURM_JOB_ID']}" if "SLURM_JOB_ID" in os.environ else ""
        with suppress(OSError):  # a full disk has no room for a name, and the lock is held all the same
            if not isinstance(lock, SoftFileLock):
                since = time.strftime("%F %T")
                path.write_text(f"process {os.getpid()} on {socket.gethostname()}{job}, since {since}")
        yield True
    finally:
        _let_go(lock, path)


def holder(path: Path) -> str | None:
    """Who holds the file, in words; None if nobody does."""
    if not path.exists():
        return None
    lock = FileLock(path)
    with suppress(OSError):
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return path.read_text() or "another process"
        _let_go(lock, path)
    return None


def _let_go(lock: FileLock, path: Path) -> None:
    if not isinstance(lock, SoftFileLock):  # which takes its file away by itself
        path.unlink(missing_ok=True)  # while it is held: whoever waits for it sees that, and makes a new one
    lock.release()
