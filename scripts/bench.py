"""`make bench`: what syre costs and what an ensemble gains, as ratios of times taken in turns in one process.

    python -m scripts.bench [--threads 1] [--quick] [--only sweeps]

Nine tables:
    step time    a whole training step (forward, backward, optimizer) with syre / the same without it
    watch        the same step with `syre.Watch` at its default, its measurements included / without it
    diagnose     `syre.diagnose` of a ResNet50 and of a model of GPT-2's size / a training step of it
    rivals       a training step with each method against lost plasticity / a step of plain training
    memory       bytes that syre adds / bytes of the decayed parameters
    ensemble     time of 64 runs one by one / time of the same 64 runs in groups of the R that the rule chooses
    sweeps       the training of a figure's sweep as bare torch loops, run by run / as `make figN` runs it
    images       steps of a ResNet18, a ViT and SimCLR, data included, as a textbook loop / as the trainer takes them
    rl           steps of PPO on an ant, as stable-baselines3 takes them / as figure 6 does, and against the physics

A ratio is a median with its quartiles over rounds; in each round every contender runs once, in turns, so that a busy
moment strikes all of them. With one thread the clock is the CPU time of this process, which other processes disturb
less; with more it is the time that passes. For images it always is, with two threads and a textbook loop that has two
loader processes besides. Targets stand beside the ratios; nothing fails on a timing.
"""

import argparse
import gc
import json
import platform
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from hydra import initialize_config_dir
from torch import Tensor, nn
from torch.optim import Optimizer

import syre
from experiments.engine.build import assemble, build
from experiments.engine.config import Run
from experiments.engine.expand import Group
from experiments.engine.experiment import CONFIGS, Experiment
from scripts.bench_diagnose import diagnoses
from scripts.bench_images import images, resnet18
from scripts.bench_rivals import rivals
from scripts.bench_rl import rl
from scripts.bench_table import Effort, Row, trainer_step
from syre.batches import Batches
from syre.core import SyreHandle, attach_anchors
from syre.data import DataError, Dataset
from syre.learners import Ensemble, Learner, Replica, Single, replicas_per_process
from syre.metrics.cost import Step, clock
from syre.models import MLP, Noisy
from syre.optim import SGD, Adam, OptimizerSpec
from syre.tasks import Classification
from syre.tasks.cost import FORMS, classification_step, with_syre
from syre.trainer import flush_denormals

# ---- a. step time ----------------------------------------------------------------------------------------------------

OPTIMIZERS: dict[str, Callable[[nn.Module], Optimizer]] = {
    "SGD": lambda model: torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-3),
    "fused AdamW": lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2, fused=True),
}


def mlp() -> nn.Module:
    return MLP(hidden=[300, 300, 300]).build((784,), 10)


def settle(forms: Mapping[str, tuple[nn.Module, Optimizer]], steps: Mapping[str, Step]) -> None:
    """The state of a run under way: what is rounded after every step at first is so after every 16th from 1024 on.

    Of a large model these steps would take minutes, and are not seen beside its own.
    """
    for form, (model, optimizer) in forms.items():
        if sum(parameter.numel() for parameter in model.parameters()) > 2**20:
            return
        steps[form]()  # there are gradients now
        for _ in range(1024):
            optimizer.step()


def step_time(effort: Effort) -> Iterator[Row]:
    batch = 2 if effort.quick else 32
    fewer = replace(effort, rounds=min(5, effort.rounds))
    settings = [
        ("MLP 784-300-300-300-10, batch 64", mlp, (64, 784), "<= 1.08", effort),
        ("MLP 784-300-300-300-10, batch 512", mlp, (512, 784), "<= 1.02", effort),
        (f"ResNet18 32x32, batch {batch}", resnet18, (batch, 3, 32, 32), "<= 1.02", fewer),
    ]
    for what, make, shape, target, spent in settings:
        inputs, labels = torch.randn(shape), torch.randint(10, shape[:1])
        for name, optimizer_of in OPTIMIZERS.items():
            forms = {form: with_syre(form, make(), optimizer_of, seed=0) for form in FORMS}
            steps = {form: classification_step(*pair, inputs, labels) for form, pair in forms.items()}
            if not effort.quick:
                settle(forms, steps)
            taken = spent.times(steps)
            note = f"plain {1e3 * statistics.median(taken['plain']):.1f} ms"
            for form, goal in (("attach", target), ("parametrize", "")):
                yield Row(f"{form} / plain: {what}, {name}", taken[form] / taken["plain"], goal, note)


# ---- b. watch --------------------------------------------------------------------------------------------------------


def watched(effort: Effort) -> Iterator[Row]:
    """A measurement comes every so many hundred steps, and falls into few rounds: it is timed by itself."""
    batch = 2 if effort.quick else 32
    fewer = replace(effort, rounds=min(5, effort.rounds))
    settings = [
        ("MLP 784-300-300-300-10, batch 64", mlp, (64, 784), effort),
        (f"ResNet18 32x32, batch {batch}", resnet18, (batch, 3, 32, 32), fewer),
    ]
    for what, make, shape, spent in settings:
        inputs, labels = torch.randn(shape), torch.randint(10, shape[:1])
        forms = {form: with_syre("plain", make(), OPTIMIZERS["SGD"], seed=0) for form in ("plain", "watched")}
        model, optimizer = forms["watched"]
        # No measurement is due within the rounds.
        watch = syre.Watch(optimizer, model, every=10**9, batch=inputs[:1])
        steps = {form: classification_step(*pair, inputs, labels) for form, pair in forms.items()}
        taken = spent.times({**steps, "measure": watch.measure})
        plain, cost = taken["plain"], taken["measure"]
        between = 100 * np.ceil(cost / (0.8e-2 * 100 * plain))  # at its default: every 100 steps, 0.8 % of the time
        note = f"a measurement {1e3 * statistics.median(cost):.0f} ms, every {statistics.median(between):.0f} steps"
        yield Row(f"Watch / plain: {what}, SGD", (taken["watched"] + cost / between) / plain, "<= 1.01", note)


# ---- c. memory -------------------------------------------------------------------------------------------------------


def allocated() -> int:
    """Bytes of all tensors alive, each storage once."""
    gc.collect()
    tensors = (thing for thing in gc.get_objects() if issubclass(type(thing), Tensor))
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def attached_bytes(make: Callable[[], nn.Module], dtype: torch.dtype | None) -> tuple[int, int, int]:
    """Bytes of the decayed parameters, of their anchors, and by which attaching made all tensors alive grow.

    After a step, since until then a copy of the weights is kept, to take the shift back.
    """
    model = make()
    optimizer = OPTIMIZERS["SGD"](model)
    before = allocated()
    handle = syre.attach(optimizer, model, sigma=0.01, seed=0, anchor_dtype=dtype)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    optimizer.state.clear()
    grown = allocated() - before
    decayed = sum(parameter.nbytes for parameter in model.parameters())
    return decayed, sum(anchor.nbytes for anchor in handle.anchors.values()), grown


def memory(_: Effort) -> Iterator[Row]:
    for what, make in (("MLP 784-300-300-300-10", mlp), ("ResNet18", resnet18)):
        for kind, dtype, target in (("fp32", None, "<= 1"), ("bf16", torch.bfloat16, "<= 0.5")):
            decayed, anchors, grown = attached_bytes(make, dtype)
            yield Row(f"{kind} anchors / parameters: {what}", [anchors / decayed], target)
            yield Row(f"growth of all tensors alive / parameters: {what}, {kind}", [grown / decayed], target)


# ---- d. ensemble -----------------------------------------------------------------------------------------------------

RUNS, HIDDEN, CLASSES, DECAY, SAMPLES = 64, 100, 10, 1e-3, 4096
TASK = Classification()
TARGETS = {(5, 32): ">= 10", (20, 64): ">= 4"}
SPECS: dict[str, tuple[OptimizerSpec, Callable[[nn.Module], Optimizer]]] = {
    "SGD": (SGD(lr=0.1), lambda m: torch.optim.SGD(m.parameters(), lr=0.1, weight_decay=DECAY)),
    "Adam": (Adam(lr=1e-3), lambda m: torch.optim.Adam(m.parameters(), lr=1e-3, weight_decay=DECAY)),
}


def replica(spec: OptimizerSpec, inputs: int) -> Replica:
    model = MLP(hidden=[HIDDEN], activation="tanh").build((inputs,), CLASSES)
    return Replica(model=model, optimizer=spec.build(model, DECAY), noise=torch.Generator())


def learner_step(team: Learner, data: Dataset, batch: int) -> Step:
    batches = Batches([data] * team.size, scales=[1.0] * team.size, seeds=list(range(team.size)), batch_size=batch)
    return trainer_step(team, batches, TASK.loss)


def bare_step(model: nn.Module, optimizer: Optimizer, loss: Callable, data: Any, batch: int, noise: Any = None) -> Step:
    """A step as one writes it by hand: indexing, forward, backward, the optimizer."""
    noisy = [module for module in model.modules() if isinstance(module, Noisy) and module.is_active()]
    samples = len(data.train_inputs)
    order, starts = torch.randperm(samples), cycle(range(0, samples - batch + 1, batch))

    def step() -> None:
        start = next(starts)
        inputs, targets = data.train_inputs, data.train_targets
        if batch < samples:
            chosen = order[start : start + batch]
            inputs, targets = inputs[chosen], targets[chosen]
        for module in noisy:
            module.noise = module.draw(batch, noise)
        optimizer.zero_grad()
        loss(model(inputs), inputs, targets).backward()
        optimizer.step()

    return step


def plain_step(build: Callable[[nn.Module], Optimizer], data: Dataset, batch: int) -> Step:
    """With torch's default optimizer, and nothing of syre."""
    model = nn.Sequential(nn.Linear(data.train_inputs.shape[1], HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, CLASSES))
    return bare_step(model, build(model), lambda out, _, y: nn.functional.cross_entropy(out, y), data, batch)


def ensemble(effort: Effort) -> Iterator[Row]:
    for inputs in (5, 20, 100):
        x, y = torch.randn(SAMPLES, inputs), torch.randint(CLASSES, (SAMPLES,))
        data = Dataset(train_inputs=x, train_targets=y, test_inputs=x, test_targets=y, num_classes=CLASSES)
        parameters = HIDDEN * (inputs + 1) + CLASSES * (HIDDEN + 1)
        for batch in (32, 64, 1000):
            size = replicas_per_process(parameters, HIDDEN + CLASSES, batch)
            full, rest = divmod(RUNS, size)
            for name, (spec, optimizer_of) in SPECS.items():
                contenders = {
                    "single": learner_step(Single(replica(spec, inputs)), data, batch),
                    "plain": plain_step(optimizer_of, data, batch),
                    "group": learner_step(Ensemble([replica(spec, inputs) for _ in range(size)]), data, batch),
                }
                if rest:
                    team = Ensemble([replica(spec, inputs) for _ in range(rest)]) if rest > 1 else None
                    contenders["rest"] = learner_step(team, data, batch) if team else contenders["single"]
                taken = effort.times(contenders)
                ours = full * taken["group"] + taken.get("rest", 0.0)
                what = f"{inputs} inputs, batch {batch}, {name}, R = {size}"
                for base, goal in (("single", TARGETS.get((inputs, batch), ">= 1")), ("plain", "")):
                    note = f"{base} {1e6 * statistics.median(taken[base]):.0f} us"
                    yield Row(f"{base} / ensemble: {what}", RUNS * taken[base] / ours, goal, note)


# ---- e. sweeps -------------------------------------------------------------------------------------------------------


def packed(figure: str) -> list[Group]:
    """The groups of a figure's sweep at `cpu` scale, as `make` packs them."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        whole = Experiment.load("fig2" if figure == "fig7" else figure, ["scale=cpu"])
    groups = whole.pack(whole.runs)
    if figure in ("fig2", "fig7"):  # figure 7 is the noisy runs of figure 2's experiment
        noise = [group.runs[0].data.label_noise + group.runs[0].data.input_noise for group in groups]
        groups = [group for group, n in zip(groups, noise, strict=True) if (n > 0) == (figure == "fig7")]
    return groups


def by_hand(run: Run) -> Step:
    """A step of one run with torch's default optimizer and memory layout, syre attached."""
    one, data = build(run, None, torch.device("cpu"))
    one.model.to(memory_format=torch.contiguous_format)
    kind, plain = cast(Any, type(one.optimizer)), {"fused": None, "foreach": None}
    optimizer = kind([{**group, **plain} for group in one.optimizer.param_groups], lr=1.0)
    if isinstance(one.handle, SyreHandle):
        one.handle.detach()
        attach_anchors(optimizer, one.model, one.handle.anchors)
    batch = run.train.batch(len(data.train_inputs))
    return bare_step(one.model, optimizer, run.task.loss, data, batch, one.noise)


def sweep_times(figure: str, effort: Effort) -> Row:
    """Over the kinds of groups of a sweep, the time of all their steps; each kind is measured on one group."""
    kinds: dict[str, list[Group]] = {}
    for group in packed(figure):
        alike = {key: group.runs[0].config[key] for key in ("model", "data", "optim", "task", "train")}
        kinds.setdefault(json.dumps([alike, len(group.runs)]), []).append(group)
    bare, ours = np.zeros(effort.rounds), np.zeros(effort.rounds)
    for groups in kinds.values():
        runs = groups[0].runs
        team, batches = assemble(groups[0], None, torch.device("cpu"))
        steps = len(groups) * runs[0].train.total_steps(batches.steps_per_epoch, batches.stages)
        contenders = {"bare": by_hand(runs[0]), "ours": trainer_step(team, batches, runs[0].task.loss)}
        taken = effort.times(contenders)
        bare += steps * len(runs) * taken["bare"]
        ours += steps * taken["ours"]
    sizes = [len(group.runs) for groups in kinds.values() for group in groups]
    note = f"{sum(sizes)} runs in {len(sizes)} groups; {statistics.median(ours) / 60:.1f} core-minutes of steps"
    return Row(f"bare loops / as run: {figure}", bare / ours, ">= 1", note)


def sweeps(effort: Effort) -> Iterator[Row]:
    short = replace(effort, rounds=min(5, effort.rounds))
    for figure in ("fig2", "fig5", "fig7", "fig9", "fig11"):
        try:
            yield sweep_times(figure, short)
        except DataError as error:
            print(f"  {figure} left out: {error}")


# ---- the command line ------------------------------------------------------------------------------------------------

TABLES: dict[str, tuple[str, Callable[[Effort], Iterator[Row]]]] = {
    "step": ("Step time: with syre / without (the same optimizer, the same batch)", step_time),
    "watch": ("Step time: with syre.Watch at its default / without", watched),
    "diagnose": ("syre.diagnose / a training step of the model (forward, backward and SGD)", diagnoses),
    "rivals": ("Step time: with each method against lost plasticity / plain training", rivals),
    "memory": ("Memory that attach adds, as a fraction of the decayed parameters", memory),
    "ensemble": (
        f"{RUNS} runs one by one / as ensembles (inputs-{HIDDEN}-{CLASSES}, tanh)\n"
        "  one by one as `single`: this trainer, R = 1, a fused optimizer; `plain`: a bare loop, torch's default",
        ensemble,
    ),
    "sweeps": ("Sweeps at cpu scale: bare torch loops, one run at a time / as `make` runs them", sweeps),
    "images": ("Training steps on images, data included (2 threads): a textbook loop / ours, bf16 if there", images),
    "rl": ("PPO on an ant, rollouts and updates", rl),
}


def cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.processor())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default 1)")
    parser.add_argument("--quick", action="store_true", help="one step of each: that it runs, not what it costs")
    parser.add_argument("--only", choices=TABLES, help="one of the tables")
    arguments = parser.parse_args()
    quick = arguments.quick
    flush_denormals(arguments.threads)
    torch.manual_seed(0)
    effort = Effort(rounds=1 if quick else 11, seconds=0.0 if quick else 0.1, clock=clock(), quick=quick)
    threads = torch.get_num_threads()
    kind = "CPU time" if threads == 1 else "wall time"
    print(f"torch {torch.__version__}, {threads} threads, {cpu_model()}, {kind}")
    if quick:
        print("quick: these times are no measurements")
    for name, (title, rows) in TABLES.items():
        if arguments.only in (None, name):
            print(f"\n{title}\n  {'':<74}{'median':>8}   {'quartiles':<18}{'target':<9}")
            for row in rows(effort):
                print(row, flush=True)


if __name__ == "__main__":
    main()
