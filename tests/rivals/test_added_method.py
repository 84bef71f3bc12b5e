"""docs/add_a_method.md: what it adds is found by its name, trains by its command and does what it says."""

import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from experiments.engine.build import assemble
from experiments.engine.config import Run, identity
from experiments.engine.expand import Group
from syre import rivals
from syre.trainer import train

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/add_a_method.md").read_text()


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    return found


@pytest.fixture
def added(tmp_path, monkeypatch) -> Path:
    """The configurations with its own among them, and its class where it belongs."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    name = yaml.safe_load(block("yaml"))["name"]
    assert f"`configs/regularizer/{name}.yaml`" in TEXT
    (tmp_path / "configs" / "regularizer" / f"{name}.yaml").write_text(block("yaml"))
    module = ModuleType(f"syre.rivals.{name}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(block("python"), "docs/add_a_method.md", "exec"), vars(module))
    monkeypatch.setattr(rivals, "ResetHead", vars(module)["ResetHead"], raising=False)
    return tmp_path / "configs"


def test_its_method_trains_by_its_command_and_begins_every_task_with_a_new_head(added):
    start, *words = block("sh").split("experiments.run")[1].split()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(added), version_base="1.3"):
        small = ["data.tasks=3", "train.epochs=1", "train.evaluations=3", "model.channels=[2,3]", "model.hidden=8"]
        run = Run(config=identity(compose("config", [start, *words, *small])))
    run.check()
    assert run.regularizer.name == "reset_head"
    team, batches = assemble(Group(runs=[run]), None, torch.device("cpu"))
    handle, drawn = team.replicas[0].handle, []
    renew = type(handle).renew

    def noted(self, parameters, stage):
        before = parameters["output.weight"].clone()
        renew(self, parameters, stage)
        drawn.append((stage, before, parameters["output.weight"].clone(), parameters["output.bias"].clone()))

    type(handle).renew = noted
    events = list(train(team, run.task, batches, run.train))
    assert [stage for stage, *_ in drawn] == [1, 2]
    for _, before, weight, bias in drawn:
        assert (before != weight).all()
        assert weight.abs().max() <= 8**-0.5
        assert (bias == 0).all()
    assert events[-1].values["accuracy"].isfinite().all()


def test_the_classes_and_files_that_it_names_are_there():
    for path in re.findall(r"`((?:tests|syre|configs)/[\w/]+\.(?:py|yaml))`", TEXT):
        assert (ROOT / path).exists() or "reset_head" in path, path
    for name in re.findall(r"`syre\.rivals\.parts\.(\w+)`", TEXT):
        assert hasattr(sys.modules["syre.rivals.parts"], name)
    for name in re.findall(r"see `(\w+\.py)`", TEXT):
        assert (ROOT / "syre/rivals" / name).exists()
