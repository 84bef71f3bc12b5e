"""Every learner trains and is evaluated on a device other than the CPU: no tensor left behind, few waits for it."""

import copy
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from pretend_device import CUDA, DeviceMismatch, PretendDevice
from torch import Tensor, nn
from torch.func import vmap

from experiments.engine.build import assemble
from experiments.engine.config import Run, identity
from experiments.engine.expand import Group
from syre.batches import Batches
from syre.learners import Ensemble, Learner, Single
from syre.seeding import generator
from syre.trainer import Record, Snapshot, train

torch.set_num_threads(1)
CONFIGS = Path(__file__).parents[1] / "configs"

MLP = "model.hidden=[9,8] train.batch_size=16"
SMALL_VAE = "model=beta_vae model.hidden=9 model.latent=6 task=variational_autoencoder"
IMAGES = "data=rgb_digits data.samples=32 data.test_samples=20 train.batch_size=16"
VIT = f"model=vit model.patch=16 model.dim=8 model.depth=1 model.heads=2 model.mlp=8 {IMAGES}"
PAIR = "model=pair model.hidden=[8,8,8] task=mode_connectivity task.points=3 optim=adamw"
CNN = "model=continual_cnn model.channels=[2,3] model.padding=2 model.hidden=8 optim=sgd"
TASKS = f"{CNN} data=permuted_mnist data.base=digits data.tasks=3 data.samples=40 data.test_samples=20"
SIMCLR = f"model=simclr model.width=4 model.hidden=8 model.out=8 task=contrastive {IMAGES} data.augment=simclr"
POINT = "model=point data=random_matrix data.size=8 task=matrix optim=sgd optim.lr=0.01 train.batch_size=0"
STUDENT = "model.hidden=[8] data=teacher_student data.samples=40 optim=sgd train.batch_size=16"
LINEAR = "model=diagonal_linear data=linear_regression data.samples=30 data.dims=8 optim=sgd train.batch_size=1"
COLLAPSED = "model=collapsed_mlp model.hidden=[3,8] optim=sgd"
WIDE_VAE = "model=beta_vae model.hidden=60 model.latent=40 task=variational_autoencoder"
SYRE = "regularizer=syre regularizer.sigma=0.5"


@dataclass(frozen=True)
class Case:
    """Overrides of a run, and what differs between it and the other replicas of its group.

    waits: whether each of its steps waits for the device.
    """

    words: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    waits: bool = False


TWO: list[dict[str, Any]] = [{}, {"seed": 1}]
UNLIKE: list[dict[str, Any]] = [{}, {"seed": 1, "optim.lr": 0.003, "regularizer.weight_decay": 0.02}]
CASES = {
    "single mlp, sgd": Case(f"{MLP} optim=sgd optim.momentum=0.9 {SYRE}"),
    "single mlp, adam, clipped": Case(f"{MLP} {SYRE} train.clip=0.1"),
    "single mlp, adamw, syre advanced": Case(f"{MLP} optim=adamw regularizer=syre_advanced"),
    "single mlp, accumulated, dropout": Case(f"{MLP} regularizer=dropout train.accumulate=2"),
    "single mlp, w-fix": Case(f"{MLP} regularizer=w_fix"),
    "single vae": Case(f"{SMALL_VAE} {SYRE} task.images=[0,2] task.originals=true task.components=2"),
    "single resnet18": Case(f"model=resnet18 model.width=4 {IMAGES} data.augment=crop_flip {SYRE}"),
    "single vit": Case(f"{VIT} data.augment=randaugment model.dropout=0.1 {SYRE}"),
    "single simclr": Case(f"{SIMCLR} task.probe_decay=0.1 regularizer=syre_layers"),
    "single cnn, tasks, shrink-perturb": Case(f"{TASKS} regularizer=shrink_perturb"),
    "single cnn, redo": Case(f"{TASKS} regularizer=redo regularizer.period=3 regularizer.threshold=0.9"),
    "single cnn, continual backprop": Case(
        f"{TASKS} regularizer=continual_backprop regularizer.rate=0.1 regularizer.maturity=2"
    ),
    "single cnn, self-normalized resets": Case(
        f"{TASKS} regularizer=self_normalized_resets regularizer.window=1", waits=True
    ),
    "single cnn, weight clipping": Case(f"{TASKS} regularizer=weight_clipping regularizer.bound=0.5"),
    "single cnn, spectral": Case(f"{TASKS} regularizer=spectral"),
    "single cnn, noisy": Case(f"{TASKS} regularizer=noisy"),
    "single point": Case(f"{POINT} {SYRE}"),
    "ensemble mlp, sgd": Case(f"{MLP} optim=sgd optim.momentum=0.9 {SYRE}", TWO),
    "ensemble mlp, sgd, unlike, clipped": Case(f"{MLP} optim=sgd {SYRE} train.clip=0.1", UNLIKE),
    "ensemble mlp, adam": Case(f"{MLP} {SYRE}", TWO),
    "ensemble mlp, adam, unlike": Case(f"{MLP} {SYRE}", UNLIKE),
    "ensemble mlp, adamw, unlike": Case(f"{MLP} optim=adamw regularizer=syre_advanced", UNLIKE),
    "ensemble wide mlp, adam, unlike": Case(f"model.hidden=[70,60] train.batch_size=16 {SYRE}", UNLIKE),
    "ensemble wide mlp, adamw": Case(f"model.hidden=[70,60] train.batch_size=16 optim=adamw {SYRE}", TWO),
    "ensemble mlp, dropout, data scaled": Case(f"{MLP} regularizer=dropout", [{}, {"data.input_scale": 2.0}]),
    "ensemble mlp, sigma-asym": Case(f"{MLP} regularizer=sigma_asym", TWO),
    "ensemble vae": Case(f"{SMALL_VAE} {SYRE} train.batch_size=16", TWO),
    "ensemble wide vae, unlike": Case(f"{WIDE_VAE} {SYRE} train.batch_size=16", UNLIKE),
    "ensemble cnn, tasks, shrink-perturb": Case(f"{TASKS} regularizer=shrink_perturb", TWO),
    "ensemble cnn, tasks, l2 init": Case(f"{TASKS} regularizer=l2_init", TWO),
    "ensemble vit": Case(f"{VIT} data.augment=randaugment {SYRE}", TWO),
    "ensemble pair": Case(f"{PAIR} {SYRE} train.batch_size=16", TWO),
    "ensemble pair, w-asym": Case(f"{PAIR} regularizer=w_asym regularizer.fixed=[2,2,2,2]", TWO),
    "ensemble collapsed mlp, tangent kernel": Case(f"{COLLAPSED} task=tangent_kernel task.images=10 {SYRE}", TWO),
    "ensemble student, neurons": Case(f"{STUDENT} task=neuron_symmetry regularizer=weight_decay", TWO),
    "ensemble regression, w-fix": Case(f"{LINEAR} task=regression regularizer=w_fix", TWO),
    "ensemble points": Case(f"{POINT} {SYRE}", UNLIKE),
}
STEPS = 6


@cache
def group(name: str) -> Group:
    case = CASES[name]
    settings = f"train.steps={STEPS} train.epochs=0 train.schedule=cosine train.evaluations=2 train.checkpoints=1"
    words = f"{settings} {case.words}".split()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = identity(compose("config", words))
    runs = []
    for row in case.rows or [{}]:
        own = copy.deepcopy(config)
        for key, value in row.items():
            *path, last = key.split(".")
            (own[path[0]] if path else own)[last] = value
        runs.append(Run(config=own))
    return Group(runs=runs)


def assembled(name: str) -> tuple[Group, Learner, Batches]:
    return group(name), *assemble(group(name), None, torch.device("cuda"))


@pytest.fixture
def device() -> Iterator[PretendDevice]:
    with PretendDevice() as pretended:
        yield pretended


def listed(record: Record) -> str:
    return str({name: values.tolist() for name, values in record.values.items()})  # NaN is like NaN


@pytest.mark.parametrize("name", CASES)
def test_it_trains_and_resumes_on_the_device_alone_and_no_step_waits_for_it(name: str, device: PretendDevice) -> None:
    of, team, batches = assembled(name)
    assert isinstance(team, Ensemble if CASES[name].rows else Single)
    assert {parameter.device for parameter in team.parameters().values()} == {CUDA}
    task, settings, kept, records, waits = of.runs[0].task, of.runs[0].train, io.BytesIO(), [], {}

    def stop(step: int, total: int) -> bool:
        waits[step] = dict(device.waits)
        device.take()
        return False

    for event in train(team, task, batches, settings, stop=stop):
        if isinstance(event, Snapshot):
            torch.save(event.state, kept)
        else:
            records.append(listed(event))
    assert bool(waits[2]) == CASES[name].waits  # the second step: the first may make what is kept for all
    kept.seek(0)
    state = torch.load(kept, weights_only=True, map_location="cpu")
    _, team, batches = assembled(name)
    again = [event for event in train(team, task, batches, settings, resume=state) if isinstance(event, Record)]
    assert listed(again[-1]) == records[-1]


# ---- controls: what CUDA refuses is refused, what it waits for is counted --------------------------------------------


@pytest.fixture
def x(device: PretendDevice) -> Tensor:
    return torch.ones(4, 3, device="cuda")


REFUSED = {
    "a sum of both": lambda x, cpu: x + cpu,
    "the other way round": lambda x, cpu: cpu * x,
    "in place": lambda x, cpu: x.add_(cpu),
    "a list of both": lambda x, cpu: torch.stack([x, cpu]),
    "even a number in a list": lambda x, cpu: torch.stack([x.sum(), torch.ones(())]),
    "a layer": lambda x, cpu: nn.Linear(3, 2)(x),
    "its input": lambda x, cpu: nn.Linear(3, 2).to("cuda")(cpu),
    "a loss": lambda x, cpu: nn.functional.cross_entropy(x, torch.zeros(4, dtype=torch.long)),
    "an index of a gather": lambda x, cpu: x.gather(1, torch.zeros(4, 1, dtype=torch.long)),
    "an index of the device into a CPU tensor": lambda x, cpu: cpu[torch.zeros(2, dtype=torch.long, device="cuda")],
    "a mask": lambda x, cpu: x.masked_fill(cpu > 0, 0.0),
    "inside vmap": lambda x, cpu: vmap(lambda row: row + torch.ones(3))(x),
    "as an argument of vmap": lambda x, cpu: vmap(torch.add)(x, cpu),
    "a gradient's row": lambda x, cpu: vmap(torch.func.grad(lambda row: (row * torch.ones(3)).sum()))(x),
    "a copy of a network": lambda x, cpu: copy.deepcopy(nn.Linear(3, 2).to("cuda"))(cpu),
    "numpy": lambda x, cpu: x.numpy(),
    "a generator of the CPU": lambda x, cpu: torch.rand(2, device="cuda", generator=generator(0)),
    "one for a tensor of the device": lambda x, cpu: x.normal_(generator=generator(0)),
    "a generator of the device": lambda x, cpu: torch.rand(2, generator=generator(0, device="cuda")),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cuda_refuses_raises(what: str, x: Tensor) -> None:
    with pytest.raises(DeviceMismatch):
        REFUSED[what](x, torch.ones(4, 3))


ALLOWED = {
    "a number of the CPU": lambda x: x + torch.ones(()),
    "a copy": lambda x: torch.ones(4, 3).to(x) + x,
    "an index": lambda x: x[torch.arange(4, device=x.device)] + x,
    "vmap": lambda x: vmap(lambda row: row + torch.ones(3, device=row.device))(x) + x,
    "a gradient": lambda x: vmap(torch.func.grad(lambda row: row.square().sum()))(x) + x,
    "a layer": lambda x: nn.Linear(3, 3, device="cuda")(x) + x,
    "a stream": lambda x: torch.rand(4, 3, device="cuda", generator=generator(0, device="cuda")) + x,
    "a mask": lambda x: x.masked_fill(x > 0, torch.zeros((), device="cuda")),
}


@pytest.mark.parametrize("what", ALLOWED)
def test_what_cuda_takes_stays_there(what: str, x: Tensor, device: PretendDevice) -> None:
    device.take()
    result = ALLOWED[what](x)
    assert (result.device, result.is_cuda) == (CUDA, True)
    assert result.cpu().device == torch.device("cpu")
    result.cpu() + torch.ones(4, 3)


WAITS = {
    "read": [
        lambda x: float(x.sum()),
        lambda x: x.tolist(),
        lambda x: bool(x.sum() > 0),
        lambda x: x.sum().item(),
        lambda x: x.cpu(),
        lambda x: x.to("cpu", non_blocking=True),
        lambda x: torch.ones(4, 3).copy_(x),
        lambda x: torch.save(x, io.BytesIO()),
    ],
    "copy": [
        lambda x: torch.tensor([1.0], device="cuda"),
        lambda x: torch.ones(4, 3).to("cuda"),
        lambda x: x[torch.zeros(2, dtype=torch.long)],
        lambda x: x.copy_(torch.ones(4, 3)),
        lambda x: x.__setitem__(0, torch.ones(3)),
        lambda x: nn.Linear(3, 1, bias=False).cuda(),
    ],
    "sized": [lambda x: x[x > 0], lambda x: x.nonzero(), lambda x: torch.linalg.eigvalsh(x[:3])],
    "moved": [lambda x: torch.ones(4, 3).to("cuda", non_blocking=True)],
    None: [
        lambda x: torch.zeros(3, device="cuda"),
        lambda x: torch.full((), 3.0, device="cuda"),
        lambda x: x.to("cuda"),
        lambda x: x.double() @ x.double().mT,
        lambda x: x.shape,
        lambda x: x[1:, 0],
    ],
}


@pytest.mark.parametrize("kind", WAITS)
def test_what_makes_the_host_wait_is_counted(kind: str | None, x: Tensor, device: PretendDevice) -> None:
    for action in WAITS[kind]:
        device.take()
        action(x)
        assert device.take() == {"moved": 0} | ({kind: 1} if kind else {})


def test_nothing_is_left_of_it() -> None:
    with PretendDevice():
        kept = torch.ones(2, device="cuda")
    assert kept.device == torch.device("cpu")
    assert type(generator(0)) is torch.Generator
    assert (vmap(torch.neg)(torch.ones(2)) + torch.ones(2)).tolist() == [0.0, 0.0]
