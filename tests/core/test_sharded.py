"""Parameters of which each process has a part: FSDP2 and tensor parallel over gloo, 2 and 4 ranks, against one."""

import multiprocessing
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from syre.core import SharedAnchors, attach, attach_anchors
from syre.core.sharded import whole

dist = torch.distributed
fsdp = pytest.importorskip("torch.distributed.fsdp")
if not hasattr(fsdp, "fully_shard"):
    pytest.skip("fully_shard is public from torch 2.6 on", allow_module_level=True)

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("processes")]
SETTINGS: dict[str, Any] = {"sigma": 0.5, "seed": 3}
STEPS, HALF = 6, 3
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


class Net(nn.Module):
    """Uneven sizes: 7 rows over 2 or 4 ranks, a bias and a norm, and a parameter that one rank alone holds."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm, self.down = nn.Linear(5, 8), nn.LayerNorm(8), nn.Linear(8, 7)
        self.head = nn.Linear(7, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.down(self.norm(torch.tanh(self.up(x))))))


class Unknown(torch.optim.SGD):
    """Of a class that syre does not know: the shift form."""


OPTIMIZERS: dict[str, Any] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.3, momentum=0.9),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.3),
    "shift": lambda p: Unknown(p, lr=0.1, weight_decay=0.3, momentum=0.9),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """How a model is laid out over ranks, and when syre is attached."""

    layout: str = "fsdp"  # tensor, both, hybrid: shards of replicas, one: a single process
    optimizer: str = "SGD"
    when: str = "after"  # before: attached to the whole model, whose parameters are then replaced by shards
    sigma_d: float = 0.0
    given: bool = False  # anchors of one's own
    world: int = 2
    attached: bool = True
    again: bool = False  # a run that is resumed begins with the weights that it began with before


def build(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Net().double()


def lay_out(model: nn.Module, layout: str, world: int) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    if layout == "one":
        return model
    names = {"fsdp": ("dp",), "tensor": ("tp",), "both": ("dp", "tp"), "hybrid": ("replica", "dp")}[layout]
    mesh = init_device_mesh("cpu", (world,) if len(names) == 1 else (2, world // 2), mesh_dim_names=names)
    if "tp" in names:
        plan = {"up": ColwiseParallel(output_layouts=_replicate()), "down": RowwiseParallel(input_layouts=_replicate())}
        parallelize_module(model, mesh["tp"], plan)
    if "dp" in names:
        part = mesh["dp"] if layout == "both" else mesh
        for layer in (model.up, model.down):
            fsdp.fully_shard(layer, mesh=part)
        fsdp.fully_shard(model, mesh=part)
    return model


def _replicate() -> Any:
    from torch.distributed.tensor import Replicate

    return Replicate()


def make(case: Case, seed: int = 0) -> tuple[nn.Module, Any, Any]:
    """Model, optimizer and handle."""
    model = build(seed)
    optimizer = OPTIMIZERS[case.optimizer](model.parameters())

    def line() -> Any:
        if not case.attached:
            return None
        if case.given:
            centres = {name: p.detach() * 0 + 0.25 for name, p in build(7).named_parameters()}
            return attach_anchors(optimizer, model, centres, start="keep")
        return attach(optimizer, model, sigma_d=case.sigma_d, **SETTINGS)

    handle = line() if case.when == "before" else None
    lay_out(model, case.layout, case.world)
    if case.when == "before":  # as accelerate does it
        optimizer.param_groups[0]["params"] = list(model.parameters())
        return model, optimizer, handle
    optimizer = OPTIMIZERS[case.optimizer](model.parameters())
    return model, optimizer, line()


def train(model: nn.Module, optimizer: Any, steps: int) -> None:
    x = torch.linspace(-1, 1, 40, dtype=torch.float64).reshape(8, 5)  # the same on each rank: gradients are averaged
    for _ in range(steps):
        optimizer.zero_grad()
        (model(x) - x[:, :1].sin()).square().mean().backward()
        optimizer.step()


def gathered(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: whole(p.detach()).clone() for name, p in model.named_parameters()}


@contextmanager
def ranks(rank: int, world: int, port: int) -> Iterator[None]:
    """One of the processes, on one thread."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", SharedAnchors)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    try:
        yield
        dist.barrier()
    finally:
        dist.destroy_process_group()


def work(rank: int, world: int, port: int, cases: dict[str, Case], folder: str) -> None:
    with ranks(rank, world, port):
        for name, case in cases.items():
            kept: dict[str, Any] = {}
            model, optimizer, handle = make(case)
            kept["start"] = gathered(model)
            train(model, optimizer, STEPS)
            kept["end"] = gathered(model)
            if handle is not None:
                kept["anchors"] = {n: whole(b).clone() for n, b in handle.anchors.items()}
                kept["state"] = handle.state_dict()
                kept["layout"] = {n: str(getattr(b, "placements", None)) for n, b in handle.anchors.items()}
            if rank == 0 or handle is not None:
                torch.save(kept, Path(folder) / f"{name}.{rank}")


def run(world: int, cases: dict[str, Case], folder: Path, job: Any = work) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    # Forked off a server that has imported torch and done nothing else: autograd's threads survive no fork.
    multiprocessing.set_forkserver_preload(["torch.distributed.fsdp", "torch.distributed.checkpoint"])
    mp.start_processes(job, args=(world, port, cases, str(folder)), nprocs=world, start_method="forkserver")


CASES = {
    "fsdp": Case(),
    "fsdp-adamw": Case(optimizer="AdamW"),
    "fsdp-shift": Case(optimizer="shift"),
    "fsdp-before": Case(when="before"),
    "fsdp-before-adamw": Case(when="before", optimizer="AdamW"),
    "fsdp-before-shift": Case(when="before", optimizer="shift"),
    "fsdp-diagonal": Case(sigma_d=0.2),
    "fsdp-diagonal-before": Case(sigma_d=0.2, optimizer="AdamW", when="before"),
    "fsdp-given": Case(given=True),
    "tensor": Case(layout="tensor"),
    "tensor-adamw": Case(layout="tensor", optimizer="AdamW"),
    "tensor-shift": Case(layout="tensor", optimizer="shift"),
    "control": Case(attached=False),
}
FOUR = {
    "four": Case(world=4),
    "four-adamw": Case(world=4, optimizer="AdamW"),
    "four-before": Case(world=4, when="before"),
    "both": Case(layout="both", world=4),
    "both-adamw": Case(layout="both", world=4, optimizer="AdamW"),
    "both-shift": Case(layout="both", world=4, optimizer="shift"),
    "hybrid": Case(layout="hybrid", world=4, optimizer="AdamW"),
}
REPLICAS = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    run(2, CASES, folder)
    run(4, {name: case for name, case in FOUR.items() if case.layout != "hybrid" or REPLICAS}, folder)
    return {
        name: [
            torch.load(folder / f"{name}.{rank}") for rank in range(case.world) if (folder / f"{name}.{rank}").exists()
        ]
        for name, case in (CASES | FOUR).items()
    }


def alone(case: Case) -> dict[str, Any]:
    model, optimizer, handle = make(replace(case, layout="one", when="after"))
    start = gathered(model)
    train(model, optimizer, STEPS)
    return {"start": start, "end": gathered(model), "handle": handle}


@pytest.mark.parametrize("name", [name for name in CASES | FOUR if name != "control"])
def test_ranks_train_as_one_process(trained, name):
    case, kept = (CASES | FOUR)[name], trained[name]
    if case.layout == "hybrid" and not REPLICAS:
        pytest.skip("before torch 2.8, FSDP2 over replicas asks a CPU for an event of CUDA")
    expected = alone(case)
    for mine in kept:
        assert mine["anchors"].keys() == expected["handle"].anchors.keys()
        assert all(torch.equal(b, expected["handle"].anchors[n]) for n, b in mine["anchors"].items())
        assert all(torch.equal(w, expected["start"][n]) for n, w in mine["start"].items())
        assert mine["state"] == expected["handle"].state_dict()  # so it may be checked at another number of ranks
        torch.testing.assert_close(mine["end"], expected["end"], **CLOSE)
    if case.layout == "fsdp":
        assert all("Shard" in layout for layout in kept[0]["layout"].values())


def test_without_syre_they_train_otherwise(trained):
    bare, with_it = trained["control"][0]["end"], trained["fsdp"][0]["end"]
    assert all((bare[n] - with_it[n]).abs().max() > 1e-2 for n in bare)


# ---- resume at another number of ranks -------------------------------------------------------------------------------


def save(rank: int, world: int, port: int, cases: dict[str, Case], folder: str) -> None:
    _checkpoint(rank, world, port, cases, folder, loading=False)


def load(rank: int, world: int, port: int, cases: dict[str, Case], folder: str) -> None:
    _checkpoint(rank, world, port, cases, folder, loading=True)


def _checkpoint(rank: int, world: int, port: int, cases: dict[str, Case], folder: str, loading: bool) -> None:
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    with ranks(rank, world, port):
        for name, case in cases.items():
            there = Path(folder) / name
            model, optimizer, handle = make(replace(case, world=world), seed=1 if loading and not case.again else 0)
            if not loading:
                train(model, optimizer, HALF)
            weights, state = get_state_dict(model, optimizer)
            everything = {"model": weights, "optimizer": state, "syre": handle.state_dict()}
            if not loading:
                dcp.save(everything, checkpoint_id=str(there))
                continue
            dcp.load(everything, checkpoint_id=str(there))
            set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=state)
            handle.load_state_dict(everything["syre"])
            train(model, optimizer, STEPS - HALF)
            torch.save(gathered(model), Path(folder) / f"{name}.{world}.{rank}")


RESUMED = {
    "sgd": Case(),
    "adamw": Case(optimizer="AdamW"),
    "before": Case(when="before", optimizer="AdamW"),
    "shift": Case(optimizer="shift"),
    "again": Case(again=True, optimizer="AdamW"),
    "again-before": Case(again=True, when="before"),
}


@pytest.mark.parametrize(("first", "then"), [(2, 2), (2, 4), (4, 2), (2, 1)])
def test_a_run_is_resumed_at_another_number_of_ranks(tmp_path, first, then):
    run(first, RESUMED, tmp_path, save)
    run(then, RESUMED, tmp_path, load)
    for name, case in RESUMED.items():
        expected = alone(case)["end"]
        for rank in range(then):
            torch.testing.assert_close(torch.load(tmp_path / f"{name}.{then}.{rank}"), expected, **CLOSE)
