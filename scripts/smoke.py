"""Every experiment at its smallest scale, side by side: `make smoke`, a part of `make test`.

Each trains, draws and ends in a process of its own, forked from this one, which has loaded what all of them load: that
takes as long as such a training itself.
"""

import argparse
import importlib
import multiprocessing
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess

from experiments import run
from experiments.engine.experiment import CONFIGS

FORK = multiprocessing.get_context("fork")  # what one sets, threads and denormal numbers say, no other sees
LOADED = ("torch", "torchvision", "matplotlib.pyplot", "experiments.engine.training", "experiments.report")


def names() -> list[str]:
    """Every experiment that can run here, as `make <name>` calls it."""
    every = sorted(file.stem for file in (CONFIGS / "experiment").glob("*.yaml"))
    if find_spec("pybullet"):
        return every
    print("ant: left out, PyBullet's packages end at Python 3.11", file=sys.stderr)
    return [name for name in every if name != "ant"]


def words(name: str, launcher: str = "local") -> list[str]:
    """The command line of an experiment, after `python -m experiments.run`."""
    only = ["data.backend=mujoco"] if name == "fig6" and not find_spec("pybullet") else []
    return ["-m", f"experiment={name}", "scale=smoke", f"hydra/launcher={launcher}", *only]


def smoke(name: str, launcher: str) -> None:
    """Run an experiment in this process, which ends with its exit code."""
    sys.argv = ["experiments.run", *words(name, launcher)]
    run.cli()


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if all experiments ended well; 1 after a line that names those that did not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--launcher", default="local", help="Hydra's launcher (default: local)")
    launcher = parser.parse_args(arguments).launcher
    for module in LOADED:
        importlib.import_module(module)
    waiting, running, failed = names(), list[ForkProcess](), list[str]()
    while waiting or running:
        while waiting and len(running) < (os.cpu_count() or 1):
            running.append(FORK.Process(target=smoke, args=(waiting[0], launcher), name=waiting.pop(0)))
            running[-1].start()
        wait([process.sentinel for process in running])
        codes = {process.name: process.exitcode for process in running}  # asked once: another may end in between
        failed += [name for name, code in codes.items() if code]
        running = [process for process in running if codes[process.name] is None]
    if failed:
        print(f"failed at smoke scale: {', '.join(sorted(failed))}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
