"""Whoever waits sees from the start that something goes on: a bar in a terminal, else a line now and then."""

import fcntl
import io
import os
import pty
import re
import struct
import sys
import termios
import threading
from types import SimpleNamespace

import pytest

from experiments.engine import progress
from experiments.engine.expand import Group
from experiments.engine.progress import Sight, duration, of_sweep, plain_line, shown
from experiments.engine.store import Progress, RunStore
from experiments.engine.training import train_group
from tests.experiments.conftest import experiment_of


class Clock:
    """The time, and an event that nobody waits for: it ends after so many seconds."""

    def __init__(self, monkeypatch, end, then=lambda now: None):
        self.now, self.end, self.then = 0.0, end, then
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)

    def wait(self, seconds):
        self.now += max(0.0, seconds)
        self.then(self.now)
        return self.now > self.end


def test_a_line_comes_within_seconds_and_then_ever_more_seldom(monkeypatch, capsys):
    clock = Clock(monkeypatch, end=7200)
    progress._lines("fig5", lambda: Sight(done=clock.now / 100, total=100), clock)
    out, err = capsys.readouterr()
    assert out == ""
    first, second, *_ = lines = err.splitlines()
    assert first == "fig5: 0.0 of 100 runs done, 4 s so far, about 2.8 h left"
    assert second == "fig5: 0.3 of 100 runs done, 34 s so far, about 2.8 h left"
    assert 20 < len(lines) < 40  # of two hours: the last ones every five minutes
    assert [line.split(", ")[1] for line in lines[-2:]] == ["1.9 h so far", "2.0 h so far"]


@pytest.mark.parametrize(
    ("seen", "elapsed", "already", "said"),
    [
        (Sight(note="loading torch"), 7.0, 0, "x: loading torch, 7 s so far"),
        (Sight(done=0, total=9, note="starting"), 5.0, 0, "x: 0 of 9 runs done, 5 s so far, starting"),
        (Sight(done=4, total=8), 60.0, 0, "x: 4 of 8 runs done, 60 s so far, about 60 s left"),
        (Sight(done=4, total=8), 60.0, 3, "x: 4 of 8 runs done, 60 s so far, about 4 min left"),
        (Sight(done=50, total=100, unit="steps"), 7200.0, 0, "x: 50 of 100 steps done, 2.0 h so far, about 2.0 h left"),
    ],
)
def test_a_line_says_how_much_is_done_and_what_is_left_at_this_pace(seen, elapsed, already, said):
    assert plain_line("x", seen, elapsed, already) == said


@pytest.mark.parametrize(("seconds", "said"), [(0.4, "0 s"), (99, "99 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations_are_short(seconds, said):
    assert duration(seconds) == said


class Terminal(io.StringIO):
    """What a terminal is sent."""

    def isatty(self):
        return True


def test_a_bar_is_there_at_once_and_its_clock_moves_while_nothing_is_done(monkeypatch):
    now = Sight(note="loading torch")

    def look(seconds):
        if seconds > 3:
            now.done, now.total, now.note = 2.5, 10, "70 steps/s"

    clock = Clock(monkeypatch, end=5, then=look)
    monkeypatch.setattr("tqdm.std.time", lambda: clock.now)
    monkeypatch.setattr(sys, "stderr", Terminal())
    progress._bar("fig5", lambda: now, clock)
    sent = re.split(r"[\r\n]+", sys.stderr.getvalue())
    waiting = [line.strip() for line in sent if "loading torch" in line]
    assert waiting[0] == "fig5, loading torch [00:00]"
    assert "fig5, loading torch [00:02]" in waiting
    bar = next(line for line in sent if "2.5/10 runs" in line)
    assert bar.startswith("fig5:  25%|")
    assert "70 steps/s" in bar


@pytest.mark.parametrize(("size", "expected"), [((50, 24), 49), ((0, 0), 80)])
def test_a_bar_is_as_wide_as_its_terminal_and_is_there_where_a_terminal_claims_to_have_no_size(
    monkeypatch, size, expected
):
    """That of a container, say: a bar of no width is none."""
    inside, outside = pty.openpty()
    fcntl.ioctl(outside, termios.TIOCSWINSZ, struct.pack("HHHH", *reversed(size), 0, 0))
    with os.fdopen(inside, "rb"), os.fdopen(outside, "w") as terminal:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", terminal)
            progress._bar("fig5", lambda: Sight(done=2, total=4), SimpleNamespace(wait=lambda _: True))
            terminal.write("END")
        terminal.flush()
        sent = b""
        while not sent.endswith(b"END"):
            sent += os.read(inside, 1 << 12)
    assert max(len(line) for line in re.split(r"[\r\n]+", sent.decode())) == expected


def test_what_is_shown_is_a_bar_in_a_terminal_lines_elsewhere_and_nothing_where_it_is_switched_off(monkeypatch):
    called = []
    monkeypatch.setattr(progress, "_bar", lambda *_: called.append("bar"))
    monkeypatch.setattr(progress, "_lines", lambda *_: called.append("lines"))
    for setting, terminal, expected in (("on", True, ["bar"]), ("on", False, ["lines"]), ("off", True, [])):
        called.clear()
        monkeypatch.setenv("SYRE_PROGRESS", setting)
        monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda terminal=terminal: terminal))
        with shown("x", Sight):
            pass
        assert called == expected


def test_nothing_is_left_running_behind_whatever_happens(monkeypatch, capsys):
    """A report draws in processes that are forked, and no thread may be there then; nor that of tqdm."""
    before = threading.active_count()
    monkeypatch.setenv("SYRE_PROGRESS", "on")

    def interrupted():
        with shown("x", lambda: Sight(done=1, total=2)):
            assert threading.active_count() == before + 1
            raise KeyboardInterrupt

    for watch in (progress._lines, progress._bar):
        monkeypatch.setattr(progress, "_lines", watch)
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert threading.active_count() == before


# ---- what there is to see --------------------------------------------------------------------------------------------


def test_of_a_sweep_it_is_the_runs_that_are_done_those_in_training_as_fractions(monkeypatch, tmp_path):
    clock = Clock(monkeypatch, end=0)
    runs = [SimpleNamespace(id=name, seed=0) for name in "abcd"]
    groups, store = [Group(runs=runs[:3]), Group(runs=runs[3:])], RunStore(tmp_path)
    look = of_sweep(experiment_of(runs, tmp_path), groups)
    assert look() == Sight(done=0, total=4, note="starting the first groups")
    store.file(groups[0].id).parent.mkdir()
    store.come_to(groups[0].id, Progress(25, 100, 7))
    clock.now = 10.0
    assert look() == Sight(done=0.75, total=4, note="8 steps/s")  # 25 steps of three runs
    store.discard(groups[0].id)
    for run in groups[0].runs:
        store.run(run.id).mkdir(parents=True)
        (store.run(run.id) / "done").touch()
    assert look() == Sight(done=3, total=4)


def test_how_far_a_training_has_come_is_known_at_every_step_not_only_where_it_is_evaluated(
    composed, tmp_path, trains_here
):
    from experiments.engine.config import Run, identity

    words = ("model.hidden=[4]", "train.epochs=0", "train.steps=40", "train.evaluations=1")
    group, store, seen, kept = Group(runs=[Run(config=identity(composed(*words)))]), RunStore(tmp_path), [], []

    def see(step, total):
        seen.append((step, total))
        kept.append(store.progress(group.id))

    train_group(group, store, data_root=None, alone=True, seen=see)
    assert seen == [(step, 40) for step in range(1, 40)]
    assert kept[0][:2] == (1, 40)  # written down before the first evaluation
