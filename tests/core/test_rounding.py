"""The pull arrives whole at every learning rate, in float32 and in bfloat16: on average, in the last digit."""

import pytest
import torch
from torch import nn

from syre.core import attach, draw_anchors
from syre.core.forms import SMALL
from syre.core.rounding import add_rounded_, stream

WIDTH, SIGMA, DECAY = 768, 0.01, 0.01


GRADIENT = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(1)) * 1e-3


def step(optimizer, model, count, size=1.0):
    """One gradient for all, so that nothing but the pull tells two runs apart."""
    for _ in range(count):
        for p in model.parameters():
            p.grad = (size * GRADIENT).to(p.dtype)
        optimizer.step()


def layer(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Linear(WIDTH, WIDTH, bias=False).to(dtype)


def arrived(lr, steps, dtype=torch.float32, size=1.0, **options):
    """What the pull did to the weights, over what it does in exact arithmetic: `sum_t (1 - eta lambda)^(T-t) ...`."""
    models = [layer(dtype), layer(dtype)]
    optimizers = [torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=DECAY) for model in models]
    handle = attach(optimizers[0], models[0], sigma=SIGMA, start="keep", **options)
    for model, optimizer in zip(models, optimizers, strict=True):
        step(optimizer, model, steps, size)
    moved = (models[0].weight - models[1].weight).detach().double()
    b = handle.anchors["weight"].double()
    expected = (1 - (1 - lr * DECAY) ** steps) * b
    return float((moved * expected).sum() / expected.square().sum())


@pytest.mark.parametrize("lr", [1e-1, 1e-2, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 1e-6])
def test_the_decoupled_pull_arrives_whole_at_every_learning_rate(lr):
    assert arrived(lr, 30) == pytest.approx(1, abs=0.02)


def test_at_every_moment_all_that_was_due_has_arrived():
    for steps in (1, 7, 40, 100, 333):
        assert arrived(1e-4, steps) == pytest.approx(1, abs=0.03)


def test_with_a_diagonal_it_arrives_as_well():
    """Against float64, where nothing is lost: D scales the decay of each entry."""
    found = {}
    for dtype in (torch.float32, torch.float64):
        model = layer(dtype)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-5, weight_decay=DECAY)
        handle = attach(optimizer, model, sigma=SIGMA, sigma_d=0.3, start="keep")
        plain = layer(dtype)
        reference = torch.optim.AdamW(plain.parameters(), lr=3e-5, weight_decay=DECAY)
        step(optimizer, model, 60)
        step(reference, plain, 60)
        found[dtype] = (model.weight - plain.weight).detach().double()
    exact, b = found[torch.float64], handle.anchors["weight"].double()
    for direction in (exact, b):
        assert float((found[torch.float32] * direction).sum() / (exact * direction).sum()) == pytest.approx(1, abs=0.02)


def test_a_large_pull_is_added_as_it_always_was():
    """Numbers of runs with eta lambda >= 2^-15 are what they were: one addition after the step."""
    model, plain = layer(), layer()
    lr = 2 * SMALL / DECAY
    optimizers = [torch.optim.AdamW(m.parameters(), lr=lr, weight_decay=DECAY) for m in (model, plain)]
    b = attach(optimizers[0], model, sigma=SIGMA, start="keep").anchors["weight"]
    for _ in range(3):
        step(optimizers[0], model, 1)
        step(optimizers[1], plain, 1)
        with torch.no_grad():
            plain.weight.add_(b, alpha=lr * DECAY)
        assert torch.equal(model.weight, plain.weight)


@pytest.mark.parametrize("lr", [0.2, 1e-3])
def test_without_anchors_nothing_moves_bit_for_bit(lr):
    model, plain = layer(), layer()
    attached = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=DECAY)
    attach(attached, model, sigma=0.0)
    step(attached, model, 40)
    step(torch.optim.AdamW(plain.parameters(), lr=lr, weight_decay=DECAY), plain, 40)
    assert torch.equal(model.weight, plain.weight)


def test_two_runs_round_alike_and_a_resumed_one_goes_on_to_the_last_bit():
    def run(resume_at=None):
        model = layer()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=DECAY)
        attach(optimizer, model, sigma=SIGMA)
        for count in range(50):
            if count == resume_at:
                weights, state = model.state_dict(), optimizer.state_dict()
                model = layer()
                model.load_state_dict(weights)
                optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=DECAY)
                attach(optimizer, model, sigma=SIGMA)
                optimizer.load_state_dict(state)
            step(optimizer, model, 1)
        return model.weight.detach()

    whole = run()
    assert torch.equal(run(), whole)
    assert torch.equal(run(resume_at=39), whole)  # while a pull is waiting


def test_a_parameter_whose_gradient_comes_and_goes_is_pulled_when_it_decays():
    """AdamW decays nothing without a gradient, and what has waited belongs to those that had one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 256, bias=False), nn.Linear(256, 256, bias=False))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=DECAY)
    plain = [p.detach().clone() for p in model.parameters()]
    handle = attach(optimizer, model, sigma=1.0, start="keep")
    counts = [0, 0]
    for index in range(600):
        for which, p in enumerate(model.parameters()):
            live = which == 0 or index % 3 == 1
            p.grad = torch.zeros_like(p) if live else None
            counts[which] += live
        optimizer.step()
    assert counts == [600, 200]
    for p, before, b, count in zip(model.parameters(), plain, handle.anchors.values(), counts, strict=True):
        kept = (1 - 1e-3 * DECAY) ** count
        moved = (p.detach() - kept * before).double()
        assert float((moved * b).sum() / ((1 - kept) * b.double().square().sum())) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_rounding_is_to_a_neighbour_and_unbiased(dtype, sign):
    ulp = 2.0 ** {torch.float32: -23, torch.bfloat16: -7, torch.float16: -10}[dtype]
    start = sign * torch.full((20_000,), 1.5, dtype=dtype)
    b = torch.ones(20_000, dtype=torch.float64)
    for part in (0.01, 0.25, 0.5, 0.9, 3.3):
        target = start.clone()
        add_rounded_(target, b, part * ulp, stream(0, 1, "w", target.device))
        moved = (target.double() - start.double()) / ulp
        assert set(moved.tolist()) <= {float(int(part)), float(int(part) + 1)}
        sixth = 6 * (0.25 / 20_000) ** 0.5
        assert moved.mean().item() == pytest.approx(part, abs=sixth)


def test_pure_bfloat16_asks_for_one_of_two_ways_out():
    model = layer(torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=DECAY)
    with pytest.raises(ValueError, match=r"torch.autocast, or attach\(..., stochastic_rounding=True\)"):
        attach(optimizer, model)
    attach(optimizer, model, stochastic_rounding=True)
    other = layer(torch.bfloat16)
    unknown = type("Mine", (torch.optim.AdamW,), {})(other.parameters(), lr=1e-3, weight_decay=DECAY)
    with pytest.raises(ValueError, match="rounded away"):
        attach(unknown, other, stochastic_rounding=True)


@pytest.mark.parametrize("lr", [1e-1, 1e-2, 1e-3])
def test_the_decoupled_pull_arrives_in_bfloat16(lr):
    """Without a gradient, whose own updates bfloat16 rounds to the nearest: those of two runs soon differ."""
    assert arrived(lr, 64, torch.bfloat16, size=0.0, stochastic_rounding=True) == pytest.approx(1, abs=0.15)


def test_the_coupled_pull_arrives_in_the_bfloat16_gradient():
    """g - lambda b on average, against float64."""
    model = layer(torch.bfloat16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, weight_decay=DECAY)
    handle = attach(optimizer, model, sigma=SIGMA, start="keep", stochastic_rounding=True)
    b, total = handle.anchors["weight"].double(), torch.zeros(WIDTH, WIDTH, dtype=torch.float64)
    g = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(2)).to(torch.bfloat16)
    for _ in range(20):
        model.weight.grad = g.clone()
        optimizer.step()
        total += model.weight.grad.double() - g.double()
    pulled = float((total * -b).sum() / (20 * DECAY * b.square()).sum())
    nearest = (g.double() - DECAY * b).to(torch.bfloat16).double() - g.double()
    assert pulled == pytest.approx(1, abs=0.3)
    error = float((nearest * -b).sum() / (DECAY * b.square()).sum())
    assert abs(error - 1) > abs(pulled - 1)  # control: rounded to the nearest, it does not


def test_anchors_in_bfloat16_are_pulled_to_as_they_are():
    model, plain = layer(), layer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=DECAY)
    attach(optimizer, model, sigma=SIGMA, start="keep", anchor_dtype=torch.bfloat16)
    step(optimizer, model, 30)
    step(torch.optim.AdamW(plain.parameters(), lr=1e-4, weight_decay=DECAY), plain, 30)
    b = draw_anchors(plain, sigma=SIGMA, seed=0)["weight"].double()
    moved = (model.weight - plain.weight).detach().double()
    assert float((moved * b).sum() / (30e-6 * b.square()).sum()) == pytest.approx(1, abs=0.02)


def test_a_frozen_bfloat16_parameter_is_no_offender_until_it_is_trained():
    model = nn.Sequential(layer(torch.bfloat16), layer())
    model[0].weight.requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=DECAY)
    assert attach(optimizer, model).anchors.keys() == {"1.weight"}
    model[1].weight.grad = GRADIENT.clone()
    optimizer.step()
    model[0].weight.requires_grad_(True)
    with pytest.raises(ValueError, match=r"'0.weight' is torch.bfloat16, in which the pull .* would be rounded away"):
        optimizer.step()


@pytest.mark.parametrize("rate", [0.05, 1.0])
def test_a_large_pull_in_bfloat16_goes_to_all_entries_in_every_step(rate):
    """To no 64th of them at a time, which would take them most of the way to b in one step."""
    model = layer(torch.bfloat16)
    model.weight.data.zero_()
    model.weight.grad = torch.zeros_like(model.weight)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate / DECAY, weight_decay=DECAY)
    b = attach(optimizer, model, sigma=SIGMA, start="keep", stochastic_rounding=True).anchors["weight"].double()
    optimizer.step()
    torch.testing.assert_close(model.weight.detach().double(), rate * b, rtol=2**-7, atol=1e-30)
