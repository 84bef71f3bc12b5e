"""The training loop: what it yields and when, exact resume, learning rates, ranges, and denormal numbers."""

import io
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from replicas import TASK, Run, assemble, gaussian, row

from syre.optim import SGD, Adam
from syre.regularizers import Dropout, Syre, WFix
from syre.trainer import Record, Snapshot, Training, train

TEN = Training(steps=10, batch_size=8, schedule="cosine", clip=0.5, evaluations=5, checkpoints=1)
ADAM, NESTEROV = Adam(lr=0.01), SGD(lr=0.05, momentum=0.9, nesterov=True)


def runs(optim) -> list[Run]:
    return [Run(regularizer=Dropout(rate=0.3, weight_decay=0.1), optim=optim),
            Run(regularizer=Syre(weight_decay=0.1), optim=optim, seed=1, scale=0.5),
            Run(regularizer=WFix(fraction=0.2), optim=optim, seed=2)]  # fmt: skip


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
        ("Record", 0, "test"), ("Snapshot", 2, ""), ("Record", 5, "train"), ("Record", 5, "test"), ("Snapshot", 5, ""),
        ("Snapshot", 8, ""), ("Record", 10, "train"), ("Record", 10, "test"),
    ]  # fmt: skip


def test_the_training_loss_is_the_mean_since_the_last_evaluation():
    team, batches = assemble(runs(ADAM), gaussian(), TEN)
    records = [e for e in train(team, TASK, batches, TEN) if isinstance(e, Record) and e.split == "train"]
    team, batches = assemble(runs(ADAM), gaussian(), TEN)
    losses = torch.stack([team.step(TASK.loss, batches.train(t), lr_factor=TEN.lr_factor(t, 10), clip=TEN.clip)
                          for t in range(10)])  # fmt: skip
    torch.testing.assert_close(torch.stack([r.values["loss"] for r in records]), losses.view(5, 2, 3).mean(1))


def test_epochs_are_counted_in_whole_batches():
    settings = Training(epochs=3, batch_size=8)
    _, batches = assemble(runs(ADAM), gaussian(), settings)
    assert settings.total_steps(batches.steps_per_epoch) == 3 * (60 // 8)
    assert Training(steps=5).total_steps(7) == 5


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
    assert min(min(factors(total=n, schedule=s, warmup=w)) for n in (1, 2, 7) for s in ("constant", "cosine", "linear")
               for w in (0.0, 0.5, 1.0)) > 0  # fmt: skip


@pytest.mark.parametrize(("settings", "message"), [
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
])  # fmt: skip
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
