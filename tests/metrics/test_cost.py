"""Peak memory to the byte, and times that a busy moment strikes alike."""

import pytest
import torch

from syre.metrics.cost import clock, in_turns, peak_bytes

torch.set_num_threads(1)
KIB = 1 << 10


def hold(*sizes: int) -> None:
    """Allocate so many bytes each, all of them held at once, and let them go."""
    kept = [torch.empty(size, dtype=torch.uint8) for size in sizes]
    del kept


def test_the_peak_is_what_is_held_at_once_to_the_byte() -> None:
    before = torch.empty(100 * KIB, dtype=torch.uint8)  # does not count
    assert peak_bytes(lambda: hold(3 * KIB, 5 * KIB)) == 8 * KIB
    assert peak_bytes(lambda: [hold(3 * KIB), hold(5 * KIB)]) == 5 * KIB  # control: one after the other
    assert before.nbytes == 100 * KIB


def test_the_peak_of_a_training_step_is_that_of_its_tensors() -> None:
    def train() -> None:
        weight = torch.zeros(64, KIB, requires_grad=True)  # 256 KiB
        optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, fused=True)
        for _ in range(2):
            optimizer.zero_grad()
            weight.sum().backward()
            optimizer.step()

    weight, scalar = 256 * KIB, 4
    assert 3 * weight <= peak_bytes(train) <= 3 * weight + 10 * scalar  # weight, gradient, momentum


class Allocator:
    """That of a GPU, in bytes, with a library that keeps a workspace from its first use on."""

    def __init__(self) -> None:
        self.held = self.peak = 0
        self.workspace = False

    def take(self, size: int) -> None:
        self.held += size
        self.peak = max(self.peak, self.held)

    def work(self) -> None:
        if not self.workspace:
            self.workspace = True
            self.take(32 * KIB)
        self.take(5 * KIB)
        self.take(3 * KIB)
        self.held -= 8 * KIB

    def reset(self, device: object) -> None:
        self.peak = self.held


def test_on_a_gpu_the_workspace_of_a_library_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Allocator()
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", gpu.reset)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: gpu.held)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: gpu.peak)
    gpu.take(100 * KIB)  # does not count either
    assert [peak_bytes(gpu.work, "cuda") for _ in range(2)] == [8 * KIB] * 2
    assert gpu.held == 132 * KIB  # control: the workspace is there


@pytest.mark.parametrize("rounds", [1, 3])
def test_each_contender_runs_in_each_round_and_another_one_begins(rounds: int) -> None:
    ran, now = [], [0.0]

    def step(name: str, seconds: float) -> None:
        ran.append(name)
        now[0] += seconds

    taken = in_turns(
        {"a": lambda: step("a", 1.0), "b": lambda: step("b", 2.0)}, rounds=rounds, seconds=2.0, clock=lambda: now[0]
    )
    assert taken == {"a": [1.0] * rounds, "b": [2.0] * rounds}
    assert ran[4:] == [*"aab", *"baa", *"aab"][: 3 * rounds]  # as many steps as fit into two seconds


def test_the_clock_of_one_thread_is_that_of_the_process() -> None:
    ticks = clock("cpu")
    start = ticks()
    sum(range(100_000))
    assert ticks() > start
