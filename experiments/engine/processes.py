"""The processes of one run, started by torchrun: how many there are, without torch, and how a job starts them.

And that each of several processes, of a run or of a sweep, writes whole lines.
"""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from experiments.engine.expand import Group
from experiments.engine.preemption import Stop
from experiments.engine.store import Outcome, RunStore


def world() -> int:
    """`syre.distributed.world`, without torch."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """`syre.distributed.rank`, without torch."""
    return int(os.environ.get("RANK", "0")) if world() > 1 else 0


def write_whole_lines() -> None:
    """Hand each line that this process prints over at once, also where Python's buffering is off.

    Under `PYTHONUNBUFFERED=1`, which many containers set, `print` writes a line and its end apart, and the lines of
    processes side by side run into each other.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, write_through=False)


def torchrun(group: Group, store: RunStore, processes: int, words: Sequence[str]) -> Outcome:
    """Train the only run of a group over several processes of this machine, which are stopped by the same signal."""
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m", "experiments.run"]
    child = subprocess.Popen([sys.executable, *command, *words])
    with Stop(lambda: child.send_signal(signal.SIGTERM)) as stop:  # torchrun hands it to all of them
        code = child.wait()
    if store.all_finished(group):
        return Outcome.done
    if stop.asked:
        stop.leave()
    if code:
        raise RuntimeError(f"torchrun ended with exit code {code}")
    return Outcome.held
