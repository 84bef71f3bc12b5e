"""`make status`: what of an experiment is committed, trained here and still to train, and the hours that it takes.

python -m experiments.status                       every experiment, at scale cpu
python -m experiments.status fig5 --scale paper    one, in words, with its groups in training and what has failed
"""

import argparse
import sys
from argparse import RawDescriptionHelpFormatter as Raw
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from hydra import initialize_config_dir

import experiments.figures
from experiments.engine.config import Scale
from experiments.engine.errors import is_users, one_line
from experiments.engine.experiment import CONFIGS, Experiment
from experiments.engine.progress import Status, status

COLUMNS = ("runs", "committed", "trained here", "training now", "to train", "hours", "new", "hours of new")
LEGEND = """
committed      their numbers are in results/, from which `make plots` draws
trained here   they have ended, in outputs/
to train       all that `make fig5`, say, would train: what has not ended here, committed or not, and what has failed
new            what of it is not committed either: all that `make fig5 ARGS="adopt=true"` would train
hours          of one process, from what runs of the same kind took; ? where none has been timed
`make status FIG=fig5` says it of one, in words"""


FIGURES = Path(experiments.figures.__path__[0])


def main(arguments: Sequence[str] | None = None, show: Callable[[str], None] = print) -> int:
    """0; 2 after one line for what the user can mend."""
    known = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))
    parser = argparse.ArgumentParser(prog="python -m experiments.status", description=__doc__, formatter_class=Raw)
    parser.add_argument("names", nargs="*", metavar="EXPERIMENT", help="default: a table of all of them")
    parser.add_argument("--scale", choices=[scale.value for scale in Scale], default="cpu")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides, as the sweep was given")
    options = parser.parse_args(arguments)
    if drawn := next((name for name in options.names if name not in known and (FIGURES / f"{name}.py").exists()), None):
        print(f"error: {drawn} has no runs of its own: {_drawn_from(drawn)}", file=sys.stderr)
        return 2
    if unknown := sorted(set(options.names) - set(known)):
        print(f"error: no experiment {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            if not options.names:
                show(_row(f"scale {options.scale}", COLUMNS))
            for name in options.names or known:
                experiment = Experiment.load(name, [f"scale={options.scale}", *options.set])
                found = status(experiment)
                for line in in_words(experiment, found, options.set) if options.names else [_row(name, _cells(found))]:
                    show(line)
            if not options.names:
                show(LEGEND)
    except Exception as error:
        if not is_users(error):
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


def _drawn_from(name: str) -> str:
    from experiments.analysis.pages import module_of, sources  # and pandas with it

    found = sources(module_of(name), name)
    return f"it is drawn from those of {', '.join(found)}; `make status FIG={found[0]}` says it of them"


def in_words(experiment: Experiment, found: Status, words: Sequence[str] = ()) -> Iterator[str]:
    """Where an experiment stands, a line for each thing to know; `words` are the overrides that it was given."""
    what = experiment.name + ("" if experiment.scale == "cpu" else f" SCALE={experiment.scale}")
    table = f"{experiment.config.results}/{experiment.name}"
    yield f"{experiment.name} at scale {experiment.scale}: {found.total} runs"
    yield f"  committed: {found.tabled}" + f", in {table}, from which `make plots` draws" * bool(found.tabled)
    yield f"  trained here: {found.done}" + f", in {experiment.store.folder}" * bool(found.done)
    yield f"  training now: {found.running}"
    again = f", {found.failed} of them again, for they have failed" * bool(found.failed)
    yield f"  to train: {found.to_train}{again}"
    if found.to_train:
        yield f"  `{_make(what, words)}` trains these {found.to_train}{_taking(found.left, found.running)}"
    if found.tabled and found.new < found.to_train:
        rest = f"trains {found.new}{_taking(found.adopting, found.running)}" if found.new else "has nothing to train"
        yield f"  `{_make(what, ['adopt=true', *words])}` takes over what is committed, and {rest}"
    failures = [f"failed: {run}, {why}" for run, why in found.errors.items()]
    for line in [*(f"in training: {group}" for group in found.training), *failures]:
        yield f"  {' '.join(line.split())[:160]}"


def _taking(hours: str, running: int) -> str:
    """How long that takes, where it is known."""
    with_rest = ", with the rest of those in training" * bool(running)
    return "; how long that takes is not known yet" if hours == "?" else f", {hours} hours of one process{with_rest}"


def _make(what: str, words: Sequence[str]) -> str:
    return f"make {what}" + (f' ARGS="{" ".join(words)}"' if words else "")


def _cells(found: Status) -> list[object]:
    counts = [found.total, found.tabled, found.done, found.running, found.to_train]
    return [*counts, found.left, found.new, found.adopting]


def _row(name: str, cells: Iterable[object]) -> str:
    return f"{name:12}" + "".join(f"{cell!s:>{len(title) + 3}}" for cell, title in zip(cells, COLUMNS, strict=True))


if __name__ == "__main__":
    sys.exit(main())
