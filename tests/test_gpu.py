"""What holds on a CPU, on a GPU; `scripts/gpu_queue.py` begins with these tests. Without CUDA they are skipped."""

import io
from dataclasses import replace

import pytest
import torch
from replicas import DEEP, INPUTS, TASK, WIDE, Run, assemble, build, gaussian
from torch import nn

import syre
from syre.batches import Batches
from syre.data import Dataset
from syre.learners import Learner, learner
from syre.metrics.cost import peak_bytes
from syre.models import MLP
from syre.optim import SGD, Adam
from syre.precision import full_float32
from syre.regularizers import Dropout, Syre, WeightDecay
from syre.seeding import generator
from syre.trainer import Record, Snapshot, Training, train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.xdist_group("gpu"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]

SETTINGS = Training(epochs=3, batch_size=10, evaluations=3, checkpoints=4)
DOUBLE = {"rtol": 1e-9, "atol": 1e-11}  # sums in another order, in float64


def on_gpu(runs: list[Run], data: Dataset, **single: object) -> tuple[Learner, Batches]:
    """As tests/replicas.py assembles them, on the GPU."""
    replicas = []
    for run in runs:
        one = build(run, data.train_inputs.dtype)
        model = one.model.cuda()
        optimizer = run.optim.build(model, run.regularizer.weight_decay)
        handle = run.regularizer.attach(optimizer, model, run.seed)  # the start was shifted when it was built
        replicas.append(
            replace(
                one, model=model, optimizer=optimizer, handle=handle, noise=generator(run.seed, "noise", device="cuda")
            )
        )
    batches = Batches(
        [data] * len(runs),
        scales=[run.scale for run in runs],
        seeds=[run.seed for run in runs],
        batch_size=SETTINGS.batch_size,
        device="cuda",
    )
    return learner(replicas, **single), batches


def trained(runs: list[Run], data: Dataset, **single: object) -> tuple[Learner, list[Record | Snapshot]]:
    team, batches = on_gpu(runs, data, **single)
    return team, list(train(team, TASK, batches, SETTINGS))


def weights(team: Learner, row: int) -> dict[str, torch.Tensor]:
    return {name: parameter[row].cpu() for name, parameter in team.parameters().items()}


KEPT = Syre(weight_decay=0.05, sigma=0.7, start="keep")
RUNS = [
    Run(regularizer=regularizer, optim=optim, seed=seed)
    for seed, (regularizer, optim) in enumerate(
        (regularizer, optim)
        for optim in (SGD(lr=0.1, momentum=0.9), Adam(lr=0.01), Adam(lr=0.01, decoupled=True))
        for regularizer in (WeightDecay(weight_decay=0.05), KEPT)
    )
]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_attach_takes_the_steps_of_decay_towards_the_anchor(kind: type[torch.optim.Optimizer], fused: bool) -> None:
    """Against the same optimizer on l + (lambda/2) |w - b|^2, or decoupled: w <- w - lr lambda (w - b)."""
    decay, rate = 0.1, 0.05
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 3)).double().cuda()
    other = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 3)).double().cuda()
    other.load_state_dict(model.state_dict())
    optimizer = kind(model.parameters(), lr=rate, weight_decay=decay, fused=fused)
    handle = syre.attach(optimizer, model, sigma=0.5, seed=3, start="keep")
    plain = kind(other.parameters(), lr=rate, weight_decay=0)
    inputs = torch.randn(20, 6, dtype=torch.float64, device="cuda")
    targets = torch.randint(3, (20,), device="cuda")
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        plain.zero_grad()
        pairs = [(weight, handle.anchors[name]) for name, weight in other.named_parameters()]
        penalty = sum((weight - anchor).square().sum() for weight, anchor in pairs) * decay / 2
        loss = nn.functional.cross_entropy(other(inputs), targets)
        if kind is torch.optim.AdamW:
            with torch.no_grad():
                pulls = [rate * decay * (weight - anchor) for weight, anchor in pairs]
        (loss if kind is torch.optim.AdamW else loss + penalty).backward()
        if kind is torch.optim.AdamW:
            with torch.no_grad():
                for (weight, _), pull in zip(pairs, pulls, strict=True):
                    weight.sub_(pull)
        plain.step()
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, **DOUBLE)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("first", ["cpu", "cuda"])
def test_a_run_goes_on_on_the_other_device_from_where_it_was(first: str, size: int) -> None:
    data, runs = gaussian(), [Run(regularizer=Dropout(rate=0.3), optim=Adam(lr=0.01), seed=k) for k in range(size)]
    make = {"cpu": lambda: assemble(runs, data, SETTINGS), "cuda": lambda: on_gpu(runs, data)}
    team, batches = make[first]()
    state = next(event.state for event in train(team, TASK, batches, SETTINGS) if isinstance(event, Snapshot))
    buffer = io.BytesIO()
    torch.save(state, buffer)
    kept = weights(team, 0)
    buffer.seek(0)
    team, batches = make["cuda" if first == "cpu" else "cpu"]()
    team.load_state_dict(torch.load(buffer, map_location="cpu", weights_only=True)["learner"])
    for name, weight in weights(team, 0).items():
        torch.testing.assert_close(weight, kept[name], rtol=0, atol=0)
    buffer.seek(0)
    resumed = list(
        train(team, TASK, batches, SETTINGS, resume=torch.load(buffer, map_location="cpu", weights_only=True))
    )
    assert isinstance(resumed[-1], Record)
    assert resumed[-1].values["loss"].isfinite().all()


def test_anchors_are_those_of_a_cpu() -> None:
    drawn = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model = DEEP.build((INPUTS,), 3).to(device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
        drawn.append(syre.attach(optimizer, model, sigma=0.5, seed=1).anchors)
    for name, anchor in drawn[0].items():
        assert torch.equal(anchor, drawn[1][name].cpu())


@pytest.mark.parametrize("first", range(0, len(RUNS), 2))
def test_a_replica_of_an_ensemble_follows_its_lone_run(first: int) -> None:
    data, runs = gaussian(), RUNS[first : first + 2]
    team, _ = trained(runs, data)
    for row, run in enumerate(runs):
        alone, _ = trained([run], data)
        for name, weight in weights(alone, 0).items():
            torch.testing.assert_close(weights(team, row)[name], weight, **DOUBLE)
    apart = max(float((a - b).abs().max()) for a, b in zip(*(weights(team, k).values() for k in (0, 1)), strict=True))
    assert apart > 1e-3  # control: the replicas differ


@pytest.mark.parametrize("runs", [RUNS[3:4], [replace(RUNS[3], regularizer=Dropout(rate=0.3)), RUNS[3]]])
def test_a_run_resumed_from_a_checkpoint_ends_as_the_undisturbed_one(runs: list[Run], tmp_path) -> None:
    data = gaussian()
    whole, events = trained(runs, data)
    team, batches = on_gpu(runs, data)
    snapshot = next(event for event in train(team, TASK, batches, SETTINGS) if isinstance(event, Snapshot))
    torch.save(snapshot.state, tmp_path / "state.pt")
    team, batches = on_gpu(runs, data)
    kept = torch.load(tmp_path / "state.pt", weights_only=True, map_location="cpu")
    rest = list(train(team, TASK, batches, SETTINGS, resume=kept))
    for row in range(len(runs)):
        for name, weight in weights(whole, row).items():
            torch.testing.assert_close(weights(team, row)[name], weight, **DOUBLE)
    ends = [[event for event in of if isinstance(event, Record)][-1].values["loss"] for of in (events, rest)]
    torch.testing.assert_close(*ends, **DOUBLE)


def test_a_compiled_step_in_mixed_precision_on_a_fused_optimizer_learns() -> None:
    data = gaussian(torch.float32)
    run = Run(regularizer=Syre(weight_decay=1e-3, sigma=0.1, start="keep"), optim=Adam(lr=0.01))
    team, batches = on_gpu([run], data, autocast=torch.bfloat16, compiled=True)
    losses = [float(team.step(TASK.loss, batches.train(step % 6), lr_factor=1.0, clip=None)) for step in range(200)]
    assert sum(losses[-6:]) < 0.7 * sum(losses[:6])
    assert all(parameter.dtype == torch.float32 for parameter in team.parameters().values())


@pytest.mark.parametrize("optim", [SGD(lr=0.1, momentum=0.9), Adam(lr=0.01), Adam(lr=0.01, decoupled=True)])
@pytest.mark.parametrize("model", [DEEP, WIDE])
def test_the_steps_of_an_ensemble_do_not_wait_for_the_device(model: MLP, optim: SGD | Adam) -> None:
    runs = [
        Run(regularizer=KEPT, optim=replace(optim, lr=optim.lr / (1 + seed)), seed=seed, model=model)
        for seed in range(3)
    ]
    team, batches = on_gpu(runs, gaussian())
    step = lambda k: team.step(TASK.loss, batches.train(k), lr_factor=1 / (1 + k), clip=0.5)  # noqa: E731
    step(0)  # which makes what is kept
    step(1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses = [step(k) for k in (2, 3)]
        with pytest.raises(RuntimeError, match="synchroniz"):  # control
            losses[0].tolist()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_convolutions_in_float32_are_not_rounded_to_tf32() -> None:
    torch.manual_seed(0)
    layer, images = nn.Conv2d(32, 32, 3).cuda(), torch.randn(8, 32, 16, 16, device="cuda")
    with torch.no_grad(), full_float32():
        single = layer(images)
        double = layer.double()(images.double())
    assert float((single - double).abs().max() / double.abs().max()) < 1e-5  # of TF32 3e-4


def test_the_peak_is_the_same_whenever_it_is_measured_and_has_no_workspace_in_it() -> None:
    def work() -> None:
        kept = torch.ones(512, 512, device="cuda")  # 1 MiB
        kept @ kept

    first, second = (peak_bytes(work, "cuda") for _ in range(2))
    assert first == second == 2 << 20
