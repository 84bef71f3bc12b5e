"""`make gpu`: train what is missing at `paper` scale, the most wanted first, in slices that any borrowed GPU can spare.

    python -m scripts.gpu_queue --minutes 9 --out BUNDLE                 one slice, and what has come of it in few files
    python -m scripts.gpu_queue --take BUNDLE --minutes 9 --out BUNDLE   on the next machine: go on from there
    python -m scripts.gpu_queue --take BUNDLE --minutes 0                at home: take it over, and say what remains
    python -m scripts.gpu_queue --scale smoke --device cpu --minutes 2   a dry run of all of it

The runs, their identities and what they leave in outputs/ are those of `make figN SCALE=paper`, which goes on from here
as this goes on from there. The order: figure 3b, table 1, figure 12, tables 2 and 3, figures 5 and 9; of each the first
three seeds, without which there is no verdict, and then in the same order the others. Seeds that are complete are
collected into results/ (`make plots` draws them).

A slice ends before its time is over: the run in training is stopped at a step and keeps a checkpoint in outputs/, from
which the next slice goes on, to the same numbers. A slice that is killed loses what came after the last checkpoint.
The first slice on a device begins with the tests marked `gpu`.

A bundle is at most 8 files of 16 MiB: all finished runs, and the checkpoints for which there is room. The checkpoint of
a ResNet18 (90 MB) is too large: such a run has to be finished on the machine where it has begun, over several slices.

What it needs: torch, torchvision, numpy, pandas, hydra-core (with omegaconf and antlr4-python3-runtime), pyyaml, tqdm
and filelock; pytest for the tests; scikit-learn at smoke scale, for its digits. It draws nothing and logs nowhere: no
matplotlib, no scipy, no wandb. Data sets are where `make data` puts them, or in --data-root. To a machine without
network `scripts.carry` takes both, packages and data sets, in files of at most 40 MiB.
"""

import argparse
import gc
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from argparse import RawDescriptionHelpFormatter as Raw
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from hydra import initialize_config_dir

from experiments.analysis import results
from experiments.engine.build import assemble, measures
from experiments.engine.errors import is_users, one_line
from experiments.engine.expand import Group
from experiments.engine.experiment import CONFIGS, Experiment, pace
from experiments.engine.provenance import provenance
from experiments.engine.store import Outcome, RunStore, read_notes
from experiments.engine.training import train_group
from syre.data import DataError
from syre.precision import full_float32

ROOT = Path(__file__).parents[1]
ORDER = ("fig3b", "table1", "fig12", "table2", "fig5", "fig9")  # table 3 is drawn from the runs of table 2
SEEDS = 3  # without which there is no verdict
CODE = ("syre/**/*.py", "experiments/**/*.py", "scripts/**/*.py", "tests/**/*.py", "configs/**/*.yaml")
FILES, FILE_BYTES, BUNDLE_BYTES = 8, 16 << 20, 60 << 20
BUNDLE, STATE = "gpu_queue.tar.gz", "gpu_queue.json"
TAKEN = re.compile(rf"{STATE}|\w+/(runs/\w{{12}}/\w+(\.\w+)?|groups/\w{{12}}\.(json|pt))", re.ASCII)


class Deadline:
    """Asked after each step whether to stop: when two more as long as the longest (with its evaluation) are too many.

    A little of the time is left for the imports before it and the files after it.
    """

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + max(0.5 * seconds, 0.95 * seconds - 15)
        self._last, self._longest = 0.0, 0.0

    def over(self) -> bool:
        """Whether it is too late to begin something."""
        self._last = 0.0
        return time.monotonic() >= self.end

    def now(self, *_: Any) -> None:
        """Stop after this step."""
        self.end = 0.0

    def __call__(self, step: int, total: int) -> bool:
        now = time.monotonic()
        if self._last:  # the first step compiles
            self._longest = max(self._longest, now - self._last)
        self._last = now
        return now + 2 * self._longest >= self.end


def load(names: Sequence[str], options: argparse.Namespace) -> list[Experiment]:
    """The experiments of these names."""
    words = [f"scale={options.scale}", f"outputs={options.outputs}", f"results={options.results}"]
    words += [f"data_root={options.data_root}"] if options.data_root else []
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return [Experiment.load(name, words) for name in names]


def seeds(experiment: Experiment) -> list[int]:
    return sorted({run.seed for run in experiment.runs})


def collect(experiment: Experiment) -> list[int]:
    """The complete seeds, whose runs are now in the tables, if there are enough."""
    missing = {run.seed for run in experiment.missing()}
    complete = [seed for seed in seeds(experiment) if seed not in missing]
    if len(complete) >= min(SEEDS, len(seeds(experiment))):
        with experiment.sole():
            experiment.collect([run for run in experiment.runs if run.seed in complete])
    return complete


# ---- what remains, and how long it takes -----------------------------------------------------------------------------


class State:
    """What is known of a device: seconds per kind of run, and with which sources the tests have passed."""

    def __init__(self, outputs: Path, device: torch.device) -> None:
        self.path, self.device = outputs / STATE, str(provenance(device)["device"])
        self._all: dict[str, Any] = read_notes(self.path, "what it knew is measured again")
        own = self._all.setdefault(self.device, {})
        self.seconds: dict[str, float | None] = own.setdefault("seconds", {})
        self.tested: list[str] = own.setdefault("tested", [])

    @cached_property
    def sources(self) -> str:
        """A hash of code and configuration as they lie on disk: a copy of a checkout may have no commit, or changes."""
        digest = hashlib.blake2b(digest_size=10)
        for path in sorted(path for pattern in CODE for path in ROOT.glob(pattern)):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(ROOT).as_posix()} {len(content)}\n".encode() + content)
        return digest.hexdigest()

    def save(self) -> None:
        results.write_files({self.path: json.dumps(self._all, indent=1).encode()})


def step_seconds(group: Group, data_root: str | None, device: torch.device) -> float:
    """Seconds per run, from one step (the second, not compiled) times the number of steps."""
    first = group.runs[0]
    eager = first.config["compute"] | {"compile": False}
    runs = [replace(run, config=run.config | {"compute": eager}) for run in group.runs]
    learner, batches = assemble(Group(runs=runs), data_root, device)
    for step in range(2):
        start = time.perf_counter()
        with full_float32():
            losses = learner.step(first.task.loss, batches.train(step), lr_factor=0.0, clip=None)
        float(losses.sum())  # waits for a GPU
    steps = first.train.total_steps(batches.steps_per_epoch, batches.stages)
    return (time.perf_counter() - start) * steps / len(runs)


def measure_kinds(experiments: Sequence[Experiment], state: State, device: torch.device, deadline: Deadline) -> None:
    """Fill in the seconds per run: of finished runs on this device, else from one step; None if neither can be had."""
    for experiment in experiments:
        state.seconds |= experiment.estimate(experiment.taken(state.device))
        for run in experiment.missing():
            if (name := pace(run)) in state.seconds or deadline.over():
                continue
            state.seconds[name] = None
            if not measures(run):
                try:
                    alike = [other for other in experiment.missing() if pace(other) == name]
                    group = experiment.pack(alike)[0]
                    state.seconds[name] = step_seconds(group, experiment.config.data_root, device)
                except Exception as error:
                    print(f"{experiment.name}: no estimate, {one_line(error)}")
                release()
    state.save()


def remains(experiments: Sequence[Experiment], state: State) -> None:
    """Print, and collect, what there is and what is missing."""
    print(f"\n{'':10}{'runs':>12}{'seeds':>9}{'minutes left':>15}  on {state.device}")
    total = 0.0
    for experiment in experiments:
        complete, missing = collect(experiment), experiment.missing()
        seconds = [state.seconds.get(pace(run)) for run in missing]
        known, unknown = sum(filter(None, seconds)) / 60, "?" if None in seconds else ""
        total += known
        done = f"{len(experiment.runs) - len(missing)}/{len(experiment.runs)}"
        whole = f"{len(complete)}/{len(seeds(experiment))}"
        print(f"{experiment.name:10}{done:>12}{whole:>9}{known:>14.1f}{unknown:1}")
    print(f"{'total':31}{total:>14.1f}")


# ---- a slice ---------------------------------------------------------------------------------------------------------


def queue(experiments: Sequence[Experiment]) -> Iterator[tuple[Experiment, Group]]:
    """What is to train, planned as late as possible: a group is packed for the device it begins on."""
    for part in (slice(0, SEEDS), slice(SEEDS, None)):
        for experiment in experiments:
            try:
                some = seeds(experiment)[part]
                groups = experiment.plan([run for run in experiment.runs if run.seed in some])
            except DataError as error:
                print(f"{experiment.name} left out: {error}")
                continue
            yield from ((experiment, group) for group in groups)


def work(experiments: Sequence[Experiment], deadline: Deadline) -> int:
    """Train until the deadline; the number of groups that failed."""
    failed = 0
    for experiment, group in queue(experiments):
        if deadline.over():
            break
        start, what = time.monotonic(), f"{experiment.name} {group.id}, {len(group.runs)} runs"
        try:
            root = experiment.config.data_root
            ended = train_group(group, experiment.store, data_root=root, alone=False, stop=deadline)
            outcome = "stopped, to be resumed" if ended is Outcome.stopped else str(ended)
        except results.ResultsError:  # nothing can be written
            raise
        except Exception as error:
            failed, outcome = failed + 1, f"failed: {one_line(error)}"
        print(f"{what}: {outcome}, {time.monotonic() - start:.1f} s", flush=True)
        release()
    return failed


def release() -> None:
    """Give memory back between groups."""
    gc.collect()
    if torch.cuda.is_available():
        torch._dynamo.reset()
        torch.cuda.empty_cache()


def passes_tests(state: State) -> bool:
    """Whether the tests marked `gpu` pass here, or have passed."""
    if state.sources in state.tested:
        return True
    words = ["-m", "pytest", "-m", "gpu", "-rs", "-p", "no:cacheprovider", "tests/test_gpu.py"]
    if subprocess.run([sys.executable, *words], cwd=ROOT).returncode:
        return False
    state.tested.append(state.sources)
    state.save()
    return True


# ---- from machine to machine -----------------------------------------------------------------------------------------


def give(bundle: Path, experiments: Sequence[Experiment], outputs: Path) -> None:
    """Write what is finished, and the checkpoints that fit, into the folder `bundle`."""
    runs = [(experiment.store, run.id) for experiment in experiments for run in experiment.runs]
    finished = [store.files(run_id) for store, run_id in runs if store.finished(run_id)]
    state = [outputs / STATE] if (outputs / STATE).is_file() else []
    checkpoints = [path for experiment in experiments for path in experiment.store.checkpoints()]
    buffer, count, left = io.BytesIO(), len(finished), []
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for path in chain(state, *finished):
            _add(tar, path.relative_to(outputs), path.read_bytes())
        for path in sorted(checkpoints, key=_size):
            if buffer.tell() + _size(path) > BUNDLE_BYTES:
                left.append(f"{path.relative_to(outputs)} ({_size(path) >> 20} MiB)")
                continue
            with suppress(FileNotFoundError):  # another process trains, and has ended it since
                for part, content in [(part, part.read_bytes()) for part in (path.with_suffix(".json"), path)]:
                    _add(tar, part.relative_to(outputs), content)
    content = buffer.getvalue()
    parts = [content[start : start + FILE_BYTES] for start in range(0, len(content), FILE_BYTES)]
    if len(parts) > FILES:
        raise results.ResultsError(f"{count} runs do not fit into {FILES} files: raise FILES in {__file__}")
    new = {bundle / f"{BUNDLE}.{k}": part for k, part in enumerate(parts)}
    results.write_files(new)  # the one before stays until this one is there: it may be all that is left of a slice
    results.remove([*({*bundle.glob(f"{BUNDLE}.*")} - new.keys()), *bundle.glob(results.temporary(f"{BUNDLE}.*"))])
    print(f"{bundle}: {count} runs in {len(parts)} files, {len(content) >> 10} KiB")
    for name in left:
        print(f"left behind, too large: {name}")


def _size(path: Path) -> int:
    """In bytes; 0 of a file that is gone."""
    return path.stat().st_size if path.exists() else 0


def _add(tar: tarfile.TarFile, name: Path, content: bytes) -> None:
    """Add a file as it was read: one in training changes meanwhile."""
    member = tarfile.TarInfo(name.as_posix())
    member.size, member.mtime = len(content), int(time.time())
    tar.addfile(member, io.BytesIO(content))


def take(bundle: Path, outputs: Path) -> None:
    """Merge a bundle into `outputs`; what is finished here stays, and of two checkpoints the one that is further."""
    parts = sorted(bundle.glob(f"{BUNDLE}.*"))
    if not parts:
        raise results.ResultsError(f"no {BUNDLE}.0 in {bundle}")
    count = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(b"".join(part.read_bytes() for part in parts))) as tar:
            for member in tar:
                file = tar.extractfile(member) if TAKEN.fullmatch(member.name) else None
                if file is None:
                    raise results.ResultsError(f"{bundle} holds {member.name}, which is no part of a bundle")
                path, content = outputs / member.name, file.read()
                with _free(path) as ours:
                    if path.name == STATE:
                        content = _merged(path, content)
                    elif not ours or not _wanted(path, content):
                        continue
                    count += path.name == "done"
                    results.write_files({path: content})
    except (tarfile.TarError, EOFError, OSError) as error:
        raise results.ResultsError(f"the bundle in {bundle} is damaged: {one_line(error)}") from error
    print(f"{bundle}: {count} runs taken")


def _free(path: Path) -> AbstractContextManager[bool]:
    """Hold the group of a checkpoint while it is replaced; False where another process trains it."""
    return RunStore(path.parents[1]).hold(path.stem) if path.suffix == ".pt" else nullcontext(True)


def _merged(path: Path, content: bytes) -> bytes:
    """Their state with ours on top."""
    theirs, ours = json.loads(content), read_notes(path, "what it knew is measured again")
    for device, known in ours.items():
        other = theirs.setdefault(device, {"seconds": {}, "tested": []})
        other["seconds"] |= known["seconds"]
        other["tested"] = sorted({*other["tested"], *known["tested"]})
    return json.dumps(theirs, indent=1).encode()


def _wanted(path: Path, content: bytes) -> bool:
    """Whether a run is not finished here; of a checkpoint, whether some run of its group is not, and ours is behind."""
    if path.suffix != ".pt":
        return path.parents[1].name != "runs" or not RunStore(path.parents[2]).finished(path.parent.name)
    store = RunStore(path.parents[1])
    if store.all_finished(store.load(path.stem)):
        return False
    return not path.is_file() or _step(content) > _step(path.read_bytes())


def _step(checkpoint: bytes) -> int:
    state = torch.load(io.BytesIO(checkpoint), weights_only=True, map_location="cpu")["state"]
    return state["step"] if state else 0


# ---- the command line ------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """0; 1 if tests or groups failed; 2 after one line for what the user can mend."""
    parser = argparse.ArgumentParser(prog="python -m scripts.gpu_queue", description=__doc__, formatter_class=Raw)
    parser.add_argument("--minutes", type=float, default=9, help="length of the slice (default 9); 0: train nothing")
    parser.add_argument("--scale", choices=results.SCALES, default="paper")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: the GPU")
    parser.add_argument("--only", default=",".join(ORDER), metavar="NAMES", help=f"of {','.join(ORDER)}")
    parser.add_argument("--take", type=Path, metavar="FOLDER", help="first merge this bundle into the outputs")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="at the end write a bundle there")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), metavar="FOLDER")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="FOLDER")
    parser.add_argument("--data-root", metavar="FOLDER", help="of the data sets")
    parser.add_argument("--no-tests", action="store_true", help="do not begin with the tests marked gpu")
    options = parser.parse_args(arguments)
    deadline = Deadline(60 * options.minutes)
    try:
        if unknown := set(options.only.split(",")) - set(ORDER):
            raise results.ResultsError(f"--only takes {','.join(ORDER)}, not {','.join(sorted(unknown))}")
        return _run(options, deadline)
    except Exception as error:
        if not is_users(error):
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace, deadline: Deadline) -> int:
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # not in the configuration: a run is the same run on any device
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and (options.device == "cuda" or (options.device == "auto" and options.minutes)):
        raise results.ResultsError("torch sees no CUDA device; --device cpu trains on this CPU, --minutes 0 only lists")
    if options.take:
        take(options.take, options.outputs)
    names = [name for name in ORDER if name in options.only.split(",")]
    experiments, state, failed = load(names, options), State(options.outputs, device), 0
    if options.minutes:
        signal.signal(signal.SIGTERM, deadline.now)
        if not options.no_tests and not passes_tests(state):
            print("error: the tests marked gpu fail here; --no-tests goes on without them", file=sys.stderr)
            return 1
        measure_kinds(experiments, state, device, deadline)
        failed = work(experiments, deadline)
    measure_kinds(experiments, state, device, deadline if options.minutes else Deadline(600))
    remains(experiments, state)
    if options.out:
        give(options.out, experiments, options.outputs)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
