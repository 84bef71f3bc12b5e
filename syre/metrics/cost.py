"""What a training step costs: its time, taken in turns with what it is compared to, and the most memory it holds."""

import gc
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

Step = Callable[[], object]
Clock = Callable[[], float]


def clock(device: torch.device | str = "cpu") -> Clock:
    """Seconds. On a GPU, those that pass until it has done its work; with one thread the CPU time of this process,
    which other processes disturb less; with more threads the time that passes."""
    if torch.device(device).type == "cuda":

        def done() -> float:
            torch.cuda.synchronize(device)
            return time.perf_counter()

        return done
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def in_turns(contenders: Mapping[str, Step], *, rounds: int, seconds: float, clock: Clock) -> dict[str, list[float]]:
    """Seconds per step of each contender in each round, after a warm-up.

    In a round each contender runs for about `seconds` (at least one step), in turns, so that a busy moment strikes all
    of them; every round begins with another one. So ratios are to be taken round by round.
    """
    counts = {}
    for name, step in contenders.items():
        step()  # warm
        start = clock()
        step()
        counts[name] = max(1, round(seconds / max(clock() - start, 1e-6)))
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    for _ in range(rounds):
        for name in order:
            start = clock()
            for _ in range(counts[name]):
                contenders[name]()
            taken[name].append((clock() - start) / counts[name])
        order = order[1:] + order[:1]
    return taken


def peak_bytes(work: Step, device: torch.device | str = "cpu") -> int:
    """The most bytes that torch's allocator holds at once for what `work` allocates, from model to gradients.

    On a GPU `torch.cuda.max_memory_allocated`, the second time that `work` is done: the first makes what libraries keep
    for good, such as the workspace of cuBLAS, which is no part of it. On a CPU the running sum over the profiler's
    record of every allocation and release, which is the same quantity, to the byte; what a library takes by itself,
    such as the scratch space of oneDNN's convolutions, is in neither. What was allocated before does not count.
    """
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        work()
    gc.collect()  # what is released later on was allocated before
    if on_gpu:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it reports, on stderr, that there is no GPU
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    held = peak = 0
    for event in sorted((e for e in events if e.get("name") == "[memory]"), key=lambda e: e["ts"]):
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return peak
