"""A signal that asks a training to stop ends it at a checkpoint, and on SLURM puts its job back into the queue."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType


class Stop:
    """Whether a signal has asked the training to stop; to be called after each step, as `train(..., stop=...)` does.

        with Stop() as stop:
            outcome = train_group(..., stop=stop)
        if outcome is Outcome.stopped:
            stop.leave()

    The signals are SIGTERM (from `kill`, from `scancel`, from SLURM when it preempts a job) and the one that submitit
    has SLURM send some time before a job's end, SIGUSR2 or as SUBMITIT_PREEMPT_SIGNAL says. The first one calls `then`.
    """

    def __init__(self, then: Callable[[], None] | None = None) -> None:
        self.asked: set[int] = set()
        self._then = then
        self._requeue = signal.Signals[f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"]

    def __enter__(self) -> "Stop":
        signals = (self._requeue, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
        self._before = {number: signal.signal(number, self._ask) for number in signals}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _: FrameType | None) -> None:
        if self._then and not self.asked:
            self._then()
        self.asked.add(number)

    def __call__(self, step: int, total: int) -> bool:
        return bool(self.asked)

    def leave(self) -> None:
        """End this process. In a job of submitit's it first does what its signal asks for: the job is requeued.

        After SIGTERM alone it is not: the job has been cancelled, or SLURM requeues it by itself.
        """
        requeue = self._before[self._requeue]
        if callable(requeue):
            if self._requeue in self.asked:
                requeue(self._requeue, None)
            else:
                time.sleep(5)  # some clusters send SIGTERM just before the signal, which then finds submitit's handler
        sys.exit(128 + signal.SIGTERM)
