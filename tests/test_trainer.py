"""The training loop: what it yields and when, exact resume, learning rates, ranges, and denormal numbers."""

import io
import itertools
import subprocess
import sys
import warnings
from dataclasses import replace

import pytest
import torch
from replicas import INPUTS, TASK, Run, assemble, build, gaussian, row

from syre.batches import Batches
from syre.data import Dataset
from syre.learners import Learner, learner
from syre.optim import SGD, Adam
from syre.regularizers import Dropout, ShrinkPerturb, Syre, SyreChanging, WFix
from syre.tasks import Classification
from syre.trainer import Record, Snapshot, StateError, Training, train

TEN = Training(steps=10, batch_size=8, schedule="cosine", clip=0.5, evaluations=5, checkpoints=1)
ADAM, NESTEROV = Adam(lr=0.01), SGD(lr=0.05, momentum=0.9, nesterov=True)


def runs(optim) -> list[Run]:
    return [
        Run(regularizer=Dropout(rate=0.3, weight_decay=0.1), optim=optim),
        Run(regularizer=Syre(weight_decay=0.1), optim=optim, seed=1, scale=0.5),
        Run(regularizer=WFix(fraction=0.2), optim=optim, seed=2),
    ]


def same(one: list[Record], other: list[Record]) -> None:
    """Bit for bit."""
    assert [(r.step, r.split) for r in one] == [(r.step, r.split) for r in other]
    for mine, its in zip(one, other, strict=True):
        torch.testing.assert_close(mine.values, its.values, rtol=0, atol=0, equal_nan=True)


# ---- resume ----------------------------------------------------------------------------------------------------------


def saved_and_loaded(state: dict) -> dict:
    """As experiments/run.py keeps a snapshot."""
    buffer = io.BytesIO()
    torch.save({"rows": [(0, "test", "loss", [1.0])], "seconds": 0.5, "state": state}, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)["state"]


@pytest.mark.parametrize("keep", [lambda state: state, saved_and_loaded], ids=["in_memory", "through_a_file"])
@pytest.mark.parametrize("size", [1, 3], ids=["single", "ensemble"])
@pytest.mark.parametrize("optim", [ADAM, NESTEROV], ids=["adam", "nesterov"])
@pytest.mark.parametrize("steps", [10, 14])
def test_ten_steps_are_five_a_resume_and_five(steps, optim, size, keep):
    data, settings = gaussian(torch.float32), replace(TEN, steps=steps)  # 14: inside an epoch and between evaluations
    whole, batches = assemble(runs(optim)[:size], data, settings)
    events = list(train(whole, TASK, batches, settings))
    (at,) = [k for k, event in enumerate(events) if isinstance(event, Snapshot)]

    first, batches = assemble(runs(optim)[:size], data, settings)
    for event in train(first, TASK, batches, settings):
        if isinstance(event, Snapshot):
            assert (event.step, event.total) == (steps // 2, steps)
            kept = keep(event.state)
            break
    second, batches = assemble(runs(optim)[:size], data, settings)
    rest = list(train(second, TASK, batches, settings, resume=kept))
    same(rest, events[at + 1 :])
    for k in range(size):
        torch.testing.assert_close(row(second, k), row(whole, k), rtol=0, atol=0)


@pytest.mark.parametrize("size", [1, 3], ids=["single", "ensemble"])
@pytest.mark.parametrize("part", ["noise", "optimizer"])
def test_control_a_resume_without_noise_or_moments_is_another_run(size, part):
    team, batches = assemble(runs(ADAM)[:size], gaussian(), TEN)
    fresh = team.state_dict()[part]
    fresh = fresh.clone() if isinstance(fresh, torch.Tensor) else saved_and_loaded(fresh)
    (snapshot,) = [saved_and_loaded(e.state) for e in train(team, TASK, batches, TEN) if isinstance(e, Snapshot)]
    snapshot["learner"][part] = fresh
    second, batches = assemble(runs(ADAM)[:size], gaussian(), TEN)
    list(train(second, TASK, batches, TEN, resume=snapshot))
    assert any((row(second, 0)[name] != row(team, 0)[name]).any() for name in row(team, 0))


# ---- records ---------------------------------------------------------------------------------------------------------


def test_the_start_is_evaluated_and_then_evenly_to_the_end():
    team, batches = assemble(runs(ADAM), gaussian(), TEN)
    settings = replace(TEN, evaluations=2, checkpoints=3)
    events = [(type(e).__name__, e.step, getattr(e, "split", "")) for e in train(team, TASK, batches, settings)]
    assert events == [
        ("Record", 0, "test"),
        ("Snapshot", 2, ""),
        ("Record", 5, "train"),
        ("Record", 5, "test"),
        ("Snapshot", 5, ""),
        ("Snapshot", 8, ""),
        ("Record", 10, "train"),
        ("Record", 10, "test"),
    ]


def test_the_training_loss_is_the_mean_since_the_last_evaluation():
    team, batches = assemble(runs(ADAM), gaussian(), TEN)
    records = [e for e in train(team, TASK, batches, TEN) if isinstance(e, Record) and e.split == "train"]
    team, batches = assemble(runs(ADAM), gaussian(), TEN)
    step = lambda t: team.step(TASK.loss, batches.train(t), lr_factor=TEN.lr_factor(t, 10), clip=TEN.clip)  # noqa: E731
    losses = torch.stack([step(t) for t in range(10)])
    torch.testing.assert_close(torch.stack([r.values["loss"] for r in records]), losses.view(5, 2, 3).mean(1))


def test_epochs_are_counted_in_whole_batches():
    settings = Training(epochs=3, batch_size=8)
    _, batches = assemble(runs(ADAM), gaussian(), settings)
    assert settings.total_steps(batches.steps_per_epoch) == 3 * (60 // 8)
    assert Training(steps=5).total_steps(7) == 5


# ---- a sequence of tasks ---------------------------------------------------------------------------------------------

PERTURBED = ShrinkPerturb(shrink=0.5, perturb=0.3, weight_decay=0.1)
CHANGING = [SyreChanging(weight_decay=0.5, sigma=1.0, change=change) for change in ("redrawn", "halved")]
TASKS = Training(epochs=2, batch_size=15, evaluations=3, checkpoints=23)  # 4 steps an epoch, 8 a task, all of them kept


def sequence(seed: int, dtype: torch.dtype = torch.float64) -> Dataset:
    """Three tasks; the permutations are the seed's."""
    stream = torch.Generator().manual_seed(seed)
    later = [torch.randperm(INPUTS, generator=stream) for _ in range(2)]
    return replace(gaussian(dtype), permutations=torch.stack([torch.arange(INPUTS), *later]))


def of_tasks(regularizers, optim=NESTEROV, dtype=torch.float64, first: int = 0) -> tuple[Learner, Batches]:
    """Run k, of seed first + k, on the sequence of its seed."""
    several = [Run(regularizer=r, optim=optim, seed=first + k) for k, r in enumerate(regularizers)]
    team = learner([build(run, dtype) for run in several])
    seeds = [run.seed for run in several]
    return team, Batches(
        [sequence(seed, dtype) for seed in seeds], scales=[1.0] * len(seeds), seeds=seeds, batch_size=TASKS.batch_size
    )


class Watched(Classification):
    """Notes the task of each evaluation."""

    def evaluate(self, learner, batches, *, final):
        return super().evaluate(learner, batches, final=final) | {"stage": torch.full((learner.size,), batches.stage)}


def test_the_epochs_are_of_each_task_and_the_records_of_the_task_just_trained():
    team, batches = of_tasks([Dropout(rate=0.3)])
    records = [e for e in train(team, Watched(), batches, TASKS) if isinstance(e, Record) and e.split == "test"]
    assert [(r.step, int(r.values["stage"])) for r in records] == [(0, 0), (8, 0), (16, 1), (24, 2)]


@pytest.mark.parametrize("regularizer", [PERTURBED, Dropout(rate=0.3, weight_decay=0.1)])
def test_a_sequence_of_tasks_is_training_on_each_permuted_data_set_in_turn(regularizer):
    team, batches = of_tasks([regularizer])
    list(train(team, TASK, batches, TASKS))
    by_hand, _ = of_tasks([regularizer])
    for stage, order in enumerate(sequence(0).permutations):
        data = replace(gaussian(), train_inputs=gaussian().train_inputs[:, order])
        alone = Batches([data], scales=[1.0], seeds=[0], batch_size=TASKS.batch_size)
        if stage:
            by_hand.enter(stage)
        for step in range(8 * stage, 8 * stage + 8):
            by_hand.step(TASK.loss, alone.train(step), lr_factor=1.0, clip=None)
    torch.testing.assert_close(row(team, 0), row(by_hand, 0), rtol=0, atol=0)


@pytest.mark.parametrize("size", [1, 3], ids=["single", "ensemble"])
def test_weights_are_renewed_once_on_entering_each_further_task(size):
    """Where learning is negligible, two renewals leave shrink^2 of the weights; one more or less would show."""
    still = [ShrinkPerturb(shrink=0.5, perturb=0.0)] * size
    team, batches = of_tasks(still, SGD(lr=1e-12))
    start, seen = row(team, size - 1), []
    for event in train(team, TASK, batches, TASKS):
        if isinstance(event, Snapshot):
            name, weight = next(iter(row(team, size - 1).items()))
            seen.append(float((weight / start[name]).mean()))
    assert seen == pytest.approx([1.0] * 8 + [0.5] * 8 + [0.25] * 7)


@pytest.mark.parametrize("size", [1, 3], ids=["single", "ensemble"])
@pytest.mark.parametrize("at", [3, 7, 8, 9, 16, 21])  # inside a task, and around and exactly at the boundaries 8 and 16
def test_a_run_resumed_anywhere_in_a_sequence_is_the_undisturbed_run(at, size):
    regularizers = [PERTURBED, Dropout(rate=0.3), Syre(weight_decay=0.1)][:size]
    whole, batches = of_tasks(regularizers, dtype=torch.float32)
    records, kept = [], {}
    for event in train(whole, TASK, batches, TASKS):
        if isinstance(event, Record):
            records.append(event)
        else:
            kept[event.step] = saved_and_loaded(event.state)

    def resumed(state: dict) -> tuple[Learner, list[Record]]:
        team, batches = of_tasks(regularizers, dtype=torch.float32)
        events = train(team, TASK, batches, TASKS, resume=state)
        return team, [event for event in events if isinstance(event, Record)]

    team, rest = resumed(kept[at])
    same(rest, [record for record in records if record.step > at])
    for k in range(size):
        torch.testing.assert_close(row(team, k), row(whole, k), rtol=0, atol=0)
    wrong = at // 8 if at % 8 == 0 else (at // 8 + 1) % 3  # control: one renewal is left out, or is one too many
    forgetful, _ = resumed(kept[at] | {"stage": wrong})
    assert any((row(forgetful, 0)[name] != weight).any() for name, weight in row(whole, 0).items())


def test_in_a_sequence_too_a_replica_is_the_run_trained_alone():
    regularizers = [PERTURBED, replace(PERTURBED, shrink=0.9), Dropout(rate=0.3), Syre(weight_decay=0.1), *CHANGING]
    team, batches = of_tasks(regularizers)
    records = [e for e in train(team, TASK, batches, TASKS) if isinstance(e, Record)]
    for k, regularizer in enumerate(regularizers):
        alone, its = of_tasks([regularizer], first=k)
        its_records = [e for e in train(alone, TASK, its, TASKS) if isinstance(e, Record)]
        torch.testing.assert_close(row(team, k), row(alone, 0), rtol=0, atol=1e-10)
        for mine, other in zip(records, its_records, strict=True):
            for metric, values in mine.values.items():
                torch.testing.assert_close(values[k], other.values[metric][0], rtol=1e-8, atol=1e-8, check_dtype=False)


class Still(Classification):
    """Nothing to learn: the decay alone moves the weights."""

    def loss(self, output, inputs, targets):
        return 0 * super().loss(output, inputs, targets)


def vector(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


def anchors_of(regularizer, seed: int, stage: int) -> torch.Tensor:
    replica = build(Run(regularizer=regularizer, optim=NESTEROV, seed=seed))
    replica.vary(stage)
    return vector(replica.handle.effect().anchors)


@pytest.mark.parametrize("size", [1, 2], ids=["single", "ensemble"])
def test_in_each_task_the_decay_is_toward_the_anchors_of_that_task(size):
    """With eta lambda = 1/2, eight steps leave 1/256 of the distance."""
    team, batches = of_tasks(CHANGING[:size], SGD(lr=1.0))
    at = {event.step: [row(team, k) for k in range(size)] for event in train(team, Still(), batches, TASKS)}
    for k, regularizer in enumerate(CHANGING[:size]):
        anchors = [anchors_of(regularizer, k, stage) for stage in range(3)]
        for stage, b in enumerate(anchors):
            weights = vector(at[8 * stage + 8][k])
            assert (weights - b).norm() < 0.02 * anchors[0].norm()
            for other in {0, 1, 2} - {stage}:  # control
                assert (weights - anchors[other]).norm() > 0.2 * anchors[0].norm()


@pytest.mark.parametrize("optim", [NESTEROV, Adam(lr=1e-4, decoupled=True)], ids=["nesterov", "rounded"])
@pytest.mark.parametrize("size", [1, 2], ids=["single", "ensemble"])
def test_a_run_resumed_in_a_task_has_the_anchors_of_that_task(size, optim, monkeypatch):
    """The second optimizer rounds its pull stochastically, where it trains alone."""
    whole, batches = of_tasks(CHANGING[:size], optim, torch.float32)
    records, kept = [], {}
    for event in train(whole, TASK, batches, TASKS):
        if isinstance(event, Record):
            records.append(event)
        else:
            kept[event.step] = saved_and_loaded(event.state)

    def resumed(at: int) -> tuple[Learner, list[Record]]:
        team, batches = of_tasks(CHANGING[:size], optim, torch.float32)
        events = train(team, TASK, batches, TASKS, resume=kept[at])
        return team, [event for event in events if isinstance(event, Record)]

    for at in (3, 8, 9, 16, 21):  # inside a task, and around and exactly at the boundaries 8 and 16
        team, rest = resumed(at)
        same(rest, [record for record in records if record.step > at])
        for k in range(size):
            torch.testing.assert_close(row(team, k), row(whole, k), rtol=0, atol=0)
    monkeypatch.setattr(type(whole), "vary", lambda *_: None)  # control: those of the first task
    if size == 1:
        with pytest.raises(StateError, match="this optimizer state was trained with other anchors"):
            resumed(21)
    else:
        team, _ = resumed(21)
        assert all((row(team, k)[name] != weight).any() for k in (0, 1) for name, weight in row(whole, k).items())


def test_anchors_of_which_all_is_kept_are_those_of_syre():
    kept = SyreChanging(weight_decay=0.5, sigma=1.0, change="halved", keep=1.0)
    one, other, third = (of_tasks([r]) for r in (kept, Syre(weight_decay=0.5, sigma=1.0), CHANGING[0]))
    for team, batches in (one, other, third):
        list(train(team, TASK, batches, TASKS))
    torch.testing.assert_close(row(one[0], 0), row(other[0], 0), rtol=0, atol=0)
    assert all((row(third[0], 0)[name] != weight).any() for name, weight in row(other[0], 0).items())  # control


def test_training_begins_with_the_first_task_whatever_the_batches_were_used_for_before():
    (one, batches), (other, fresh) = of_tasks(CHANGING), of_tasks(CHANGING)
    batches.stage = 2
    one.vary(2)
    same(
        [e for e in train(one, TASK, batches, TASKS) if isinstance(e, Record)],
        [e for e in train(other, TASK, fresh, TASKS) if isinstance(e, Record)],
    )


# ---- settings --------------------------------------------------------------------------------------------------------


def factors(total: int = 100, **settings) -> list[float]:
    training = Training(steps=total, **settings)
    return [training.lr_factor(step, total) for step in range(total)]


def test_learning_rate_factors():
    assert set(factors()) == {1.0}
    for schedule in ("cosine", "linear"):
        values = factors(schedule=schedule)
        assert values[0] == 1.0
        assert values[50] == pytest.approx(0.5)
        assert values == sorted(values, reverse=True)
        assert 0 < values[-1] < 0.011
    assert factors(schedule="linear")[25] == pytest.approx(0.75)
    assert factors(schedule="cosine")[25] == pytest.approx((1 + 2**-0.5) / 2)


def test_warmup_rises_linearly_from_above_zero_then_the_schedule_begins():
    values = factors(schedule="linear", warmup=0.2)
    assert values[:20] == pytest.approx([(k + 1) / 20 for k in range(20)])
    assert values[20:] == pytest.approx([1 - k / 80 for k in range(80)])
    assert max(factors(warmup=1.0)) == 1.0
    assert factors(total=3, warmup=0.1) == [1.0, 1.0, 1.0]  # less than one step of warmup
    grid = itertools.product((1, 2, 7), ("constant", "cosine", "linear"), (0.0, 0.5, 1.0))
    assert min(min(factors(total=n, schedule=s, warmup=w)) for n, s, w in grid) > 0


@pytest.mark.parametrize("total", [30, 31, 32])  # also where the shares are not equal
def test_with_a_restart_each_of_a_sequence_of_tasks_has_the_factors_of_a_run_of_its_own(total):
    settings = {"schedule": "cosine", "warmup": 0.2}
    training = Training(steps=total, **settings, restart=True)
    stage = [step * 3 // total for step in range(total)]
    own = [factors(total=stage.count(k), **settings) for k in range(3)]
    assert [training.lr_factor(step, total, 3) for step in range(total)] == [*own[0], *own[1], *own[2]]
    assert [training.lr_factor(step, total) for step in range(total)] == factors(total=total, **settings)
    once = Training(steps=total, **settings)  # control
    assert [once.lr_factor(step, total, 3) for step in range(total)] == factors(total=total, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "train.epochs or train.steps must be > 0, and the other 0, got 0 and 0"),
        ({"epochs": 1, "steps": 1}, "and the other 0"),
        ({"epochs": -1, "steps": 5}, "got -1 and 5"),
        ({"steps": 1, "batch_size": -1}, "train.batch_size must be a number >= 0"),
        ({"steps": 1, "schedule": "cos"}, "train.schedule must be one of constant, cosine, linear, got 'cos'"),
        ({"steps": 1, "warmup": 1.5}, "train.warmup"),
        ({"steps": 1, "clip": -0.1}, "train.clip"),
        ({"steps": 1, "clip": float("nan")}, "train.clip"),
        ({"steps": 1, "evaluations": 0}, "train.evaluations"),
        ({"steps": 1, "checkpoints": -1}, "train.checkpoints"),
    ],
)
def test_settings_out_of_range_are_named_in_one_line(settings, message):
    with pytest.raises(ValueError, match=message) as error:
        Training(**settings)
    assert "\n" not in str(error.value)


# ---- denormal numbers ------------------------------------------------------------------------------------------------

DENORMALS = """
import torch
from syre.trainer import flush_denormals
n = 1 << 20
if {late}:
    torch.set_num_threads(2)
    torch.ones(n) * 2  # starts the worker thread
flush_denormals(threads=2)
tiny = torch.full((n,), 1000, dtype=torch.int32).view(torch.float32)  # 1.4e-42
print(torch.count_nonzero((tiny * 1).view(torch.int32)).item())
"""


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this CPU does not flush denormals")
def test_denormals_are_flushed_in_every_thread_if_asked_before_the_first_operation():
    def survivors(late: bool) -> int:
        command = [sys.executable, "-c", DENORMALS.format(late=late)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert survivors(late=False) == 0
    assert survivors(late=True) == 1 << 19  # control: the worker thread, and its half, have missed it


# ---- precision -------------------------------------------------------------------------------------------------------


SWITCHES = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # of matrix products and convolutions on a GPU


def float32_precision() -> list[str]:
    return [switch.fp32_precision for switch in SWITCHES]


@pytest.fixture
def tf32():
    before = float32_precision()
    for switch in SWITCHES:
        switch.fp32_precision = "tf32"
    yield
    for switch, value in zip(SWITCHES, before, strict=True):
        switch.fp32_precision = value


@pytest.mark.usefixtures("tf32")
def test_float32_is_of_full_precision_while_it_trains_and_evaluates_and_only_then():
    """On a GPU convolutions would be of 10 bits."""
    seen = {"loss": [], "evaluate": []}

    class Watching(Classification):
        def loss(self, *rest):
            seen["loss"].append(float32_precision())
            return super().loss(*rest)

        def evaluate(self, *rest, **options):
            seen["evaluate"].append(float32_precision())
            return super().evaluate(*rest, **options)

    team, batches = assemble(runs(ADAM)[:1], gaussian(), TEN)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # its switches have older names, which warn
        for _ in train(team, Watching(), batches, TEN):
            assert float32_precision() == ["tf32", "tf32"]
    assert seen == {"loss": [["ieee"] * 2] * 10, "evaluate": [["ieee"] * 2] * 6}

    class Failing(Classification):
        def loss(self, *rest):
            raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        list(train(team, Failing(), batches, TEN))
    assert float32_precision() == ["tf32", "tf32"]
