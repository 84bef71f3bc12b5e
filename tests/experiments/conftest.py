"""The command line and Hydra's composition, as the tests of this folder use them."""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from experiments import run
from experiments.engine.config import Run
from experiments.engine.experiment import Experiment

CONFIGS = Path(__file__).parents[2] / "configs"


@cache
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("config", list(overrides))


@pytest.fixture
def composed() -> Callable[..., DictConfig]:
    """The configuration of some Hydra overrides."""
    return lambda *overrides: _composed(overrides).copy()


def experiment_of(runs: list[Run], folder: Path, results: Path | None = None, size: int = 2) -> Experiment:
    """The experiment of some runs, whose outputs are `folder`; `size` of them train as one."""
    settings = {"experiment": folder.name, "scale": "cpu", "batched": ["seed"], "replicas": size, "data_root": None}
    places = {"outputs": str(folder.parent), "results": str(results or folder / "results")}
    return Experiment(config=OmegaConf.create(settings | places | {"curves": []}), runs=runs)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def trains_here() -> Iterator[None]:
    """For what trains in this process, which sets threads and denormal numbers for good."""
    threads = torch.get_num_threads()
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)


@pytest.fixture
def command(capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, trains_here: None) -> Callable[..., Outcome]:
    """`python -m experiments.run <words>`, in this process: much faster than a process each."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")

    def call(*words: object) -> Outcome:
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", ["run", *map(str, words)])
        capfd.readouterr()
        code = 0
        try:
            run.cli()
        except SystemExit as stop:
            code = stop.code
        return Outcome(code=code, **capfd.readouterr()._asdict())

    return call


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The environment of a command in a process of its own."""
    root = str(CONFIGS.parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
