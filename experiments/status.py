"""`make status`: what of an experiment is done, running, failed and missing, and the hours that are left.

    python -m experiments.status                       every experiment, at scale cpu
    python -m experiments.status fig5 --scale paper    one, with its groups in training and what has failed

The hours are those of a single process: of each run that is missing, the seconds that runs of its kind took, here or
in the committed tables, or else will take at the pace of those in training. Two processes need half of it, where they
have cores of their own. The last column is what is left for a sweep that takes over the runs of the tables, with
adopt=true: the queue.
"""

import argparse
import sys
from argparse import RawDescriptionHelpFormatter as Raw
from collections.abc import Callable, Iterable, Sequence

from hydra import initialize_config_dir

from experiments.engine.config import Scale
from experiments.engine.errors import is_users, one_line
from experiments.engine.experiment import CONFIGS, Experiment
from experiments.engine.progress import Status, status

COLUMNS = {
    "runs": 7,
    "done": 7,
    "running": 9,
    "failed": 8,
    "missing": 9,
    "in tables": 11,
    "hours left": 12,
    "adopting": 10,
}


def main(arguments: Sequence[str] | None = None, show: Callable[[str], None] = print) -> int:
    """0; 2 after one line for what the user can mend."""
    known = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))
    parser = argparse.ArgumentParser(prog="python -m experiments.status", description=__doc__, formatter_class=Raw)
    parser.add_argument("names", nargs="*", metavar="EXPERIMENT", help="default: all of them")
    parser.add_argument("--scale", choices=[scale.value for scale in Scale], default="cpu")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides, as the sweep was given")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.names) - set(known)):
        print(f"error: no experiment {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            show(_row(f"scale {options.scale}", COLUMNS))
            for name in options.names or known:
                found = status(Experiment.load(name, [f"scale={options.scale}", *options.set]))
                show(_row(name, _cells(found)))
                if options.names:
                    for line in [*found.training, *(f"failed {run}: {why}" for run, why in found.errors.items())]:
                        show(f"  {' '.join(line.split())[:160]}")
    except Exception as error:
        if not is_users(error):
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


def _cells(found: Status) -> list[object]:
    counts = (found.total, found.done, found.running, found.failed, found.missing, found.tabled)
    return [*counts, found.left, found.adopting]


def _row(name: str, cells: Iterable[object]) -> str:
    return f"{name:12}" + "".join(f"{cell!s:>{width}}" for cell, width in zip(cells, COLUMNS.values(), strict=True))


if __name__ == "__main__":
    sys.exit(main())
