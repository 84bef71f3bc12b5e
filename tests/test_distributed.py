"""Two processes that train one run take the steps of one process, over gloo, in float64: ViT, BatchNorm and SimCLR."""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor, nn

from syre import distributed
from syre.batches import Batches
from syre.data import Dataset
from syre.data.augment import AUGMENTATIONS
from syre.learners import Replica, Single
from syre.models import ContinualCNN, SimCLR, ViT
from syre.optim import SGD
from syre.regularizers import Regularizer, Syre
from syre.rivals import ContinualBackprop, Noisy, Redo, SelfNormalizedResets
from syre.seeding import generator
from syre.tasks import Classification, Contrastive
from syre.trainer import Record, Training, train

torch.set_num_threads(1)
# Two partial sums in place of one. Measured: 2e-15 in losses and parameters, 1e-12 in the ranks of spectra.
TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}
SIZE, BATCH, CLASSES = 8, 8, 4
SETTINGS = Training(steps=7, batch_size=BATCH, schedule="cosine", clip=0.5, evaluations=1, checkpoints=1)
VIT = ViT(patch=4, dim=8, depth=2, heads=2, mlp=12)


class Normed(nn.Module):
    """Convolutions with BatchNorm, of images and of vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 5, 3, stride=2),
            nn.BatchNorm2d(5),
            nn.Tanh(),
            nn.Flatten(),
            nn.LazyLinear(6),
            nn.BatchNorm1d(6, momentum=None),
            nn.Tanh(),
        )
        self.head = nn.Linear(6, CLASSES)
        self.body(torch.zeros(2, 3, SIZE, SIZE))

    def forward(self, x: Tensor, features: bool = False) -> Any:
        z = self.body(x)
        return (self.head(z), z) if features else self.head(z)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A run and how it is shared; the defaults are what must give the steps of one process."""

    model: Callable[[], nn.Module] = lambda: VIT.build((3, SIZE, SIZE), CLASSES)
    task: Any = field(default_factory=Classification)
    regularizer: Regularizer = field(default_factory=lambda: Syre(weight_decay=0.1, sigma=0.1))
    augment: str = "crop_flip"
    accumulate: int = 1
    sliced: bool = True  # each rank has its own share of a batch
    averaged: bool = True  # gradients
    gathered: bool = True  # negatives


SIMCLR = Case(
    model=lambda: SimCLR(width=2, stem="cifar", hidden=4, out=3).build((3, SIZE, SIZE), CLASSES),
    task=Contrastive(),
    augment="simclr",
)
UNITS = Case(model=lambda: ContinualCNN(channels=[4], kernel=3, hidden=9).build((3, SIZE, SIZE), CLASSES))
CASES = {
    "vit": Case(),
    "dropout": Case(model=lambda: replace(VIT, dropout=0.2).build((3, SIZE, SIZE), CLASSES)),
    "accumulated": Case(accumulate=2),
    "batch_norm": Case(model=Normed),
    "simclr": SIMCLR,
    "redo": replace(UNITS, regularizer=Redo(threshold=0.8, period=3)),
    "continual backprop": replace(UNITS, regularizer=ContinualBackprop(rate=0.1, maturity=1)),
    "self-normalized resets": replace(UNITS, regularizer=SelfNormalizedResets(rejection=0.3, window=2)),
    "noisy": replace(UNITS, regularizer=Noisy(std=0.1)),
    "control: every rank has the first half": Case(sliced=False),
    "control: gradients are not averaged": Case(averaged=False),
    "control: negatives of the own share": replace(SIMCLR, gathered=False),
}


def images(augment: str) -> Dataset:
    stream = torch.Generator().manual_seed(0)
    pixels = [torch.randint(256, (n, 3, SIZE, SIZE), generator=stream, dtype=torch.uint8) for n in (20, 12)]
    targets = [torch.randint(CLASSES, (len(split),), generator=stream) for split in pixels]
    return Dataset(
        train_inputs=pixels[0],
        train_targets=targets[0],
        test_inputs=pixels[1],
        test_targets=targets[1],
        num_classes=CLASSES,
        mean=(0.5,),
        std=(0.25,),
        augmentation=AUGMENTATIONS[augment],
    )


def trained(case: Case) -> dict[str, Any]:
    """All records, the final parameters and buffers, and the snapshot in between."""
    torch.manual_seed(0)
    model = case.model().double()
    model.register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))
    decay = case.regularizer.weight_decay
    optimizer = SGD(lr=0.1, momentum=0.9).build(model, decay)  # Adam would blow up the rounding of a gradient of 0
    handle = case.regularizer.attach(optimizer, model, 0)
    with pytest.MonkeyPatch.context() as patch:
        if not case.averaged:
            patch.setattr(distributed, "parallel", lambda model: model)
        if not case.gathered:
            patch.setattr(distributed, "gather", lambda x: x)
        replica = Replica(model=model, optimizer=optimizer, handle=handle, noise=generator(0, "noise"))
        learner = Single(replica, accumulate=case.accumulate)
        rank, world = distributed.rank() if case.sliced else 0, distributed.world()
        batches = Batches([images(case.augment)], scales=[1.0], seeds=[0], batch_size=BATCH, rank=rank, world=world)
        records, summed = [], []
        for event in train(learner, case.task, batches, SETTINGS):
            if isinstance(event, Record):
                records.append(event.values)
            else:
                summed.append(event.state["summed"].clone())
    return {
        "records": records,
        "summed": summed,
        "state": {name: tensor.clone() for name, tensor in learner.state_dict()["model"].items()},
        "noise": learner.state_dict()["noise"],
    }


def contrastive(x: Tensor) -> tuple[Tensor, Tensor]:
    """NT-Xent of a linear embedding of two views of n samples, x [2 n, 5], averaged over ranks, and its gradient."""
    torch.manual_seed(0)
    embedding = nn.Linear(5, 3, dtype=torch.float64)
    parallel = distributed.parallel(embedding)  # to be kept: with it end its hooks
    loss = Contrastive().loss(parallel(x), x, torch.zeros(len(x) // 2))
    loss.backward()
    return distributed.average(loss.detach()), torch.cat([p.grad.flatten() for p in embedding.parameters()])


def views() -> Tensor:
    return torch.randn(2 * BATCH, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


# ---- two processes ---------------------------------------------------------------------------------------------------


def work(rank: int, port: int, folder: Path) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    with distributed.join(torch.device("cpu")):
        for name, case in CASES.items():
            results[name] = trained(case)
        own = distributed.shard(views(), BATCH // 2)
        results["gathered"] = contrastive(own)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(distributed, "gather", lambda x: x)
            results["apart"] = contrastive(own)
        results["rows"] = distributed.gather(torch.full((2, 1, 3), float(rank)))
        with distributed.local_only():
            results["alone"] = distributed.gather(torch.full((2, 1, 3), float(rank)))
        with distributed.failure() as mine:  # both fail, one of them reports
            results["reports"] = mine
        torch.save(results, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict[str, Any]]:
    """What each of two ranks finds."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, (port, folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("control")])
def test_two_ranks_take_the_steps_of_one_process(ranks, name):
    one = trained(CASES[name])
    assert (len(one["records"]), len(one["summed"])) == (3, 1)
    for other in ranks:
        torch.testing.assert_close(other[name], one, **TOLERANCE)
    torch.testing.assert_close(ranks[0][name], ranks[1][name], rtol=0, atol=0)  # they stay together


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("control")])
def test_control_other_shares_or_other_gradients_are_another_run(ranks, name):
    one = trained(CASES[name])
    for other in ranks:
        with pytest.raises(AssertionError):
            torch.testing.assert_close(other[name]["state"], one["state"], rtol=1e-4, atol=1e-4)


def test_with_gathered_negatives_a_contrastive_loss_is_that_of_the_whole_batch(ranks):
    one = contrastive(views())
    for other in ranks:
        torch.testing.assert_close(other["gathered"], one, **TOLERANCE)
        for mine, its in zip(other["apart"], one, strict=True):  # control: negatives of the own share only
            assert not torch.allclose(mine, its, rtol=1e-2)


def test_rows_are_put_together_in_the_order_of_the_ranks(ranks):
    for rank, found in enumerate(ranks):
        assert found["rows"][..., 0].tolist() == [[0, 1], [0, 1]]
        assert found["alone"][..., 0].tolist() == [[rank], [rank]]


def test_one_of_those_that_fail_reports(ranks):
    assert sorted(found["reports"] for found in ranks) == [False, True]


def test_in_one_process_nothing_is_exchanged():
    x, model = torch.ones(2, 3), Normed()
    with distributed.join(torch.device("cpu")) as device:
        assert device.type == "cpu"
        assert distributed.gather(x) is x
        assert distributed.average(x) is x
        assert distributed.shard(x, 2) is x
        assert distributed.parallel(model) is model
    assert (distributed.world(), distributed.rank()) == (1, 0)
