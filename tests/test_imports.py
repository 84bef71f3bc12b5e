"""Imports point one way: core <- learners, rivals <- trainer <- tasks <- engine <- doors; analysis <- figures."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = (  # of syre, lowest first: a file imports from its own layer and from those before it
    ("syre.checks", "syre.seeding", "syre.distributed", "syre.extras", "syre.precision"),
    ("syre.core.arguments", "syre.core.names", "syre.core.wrapped", "syre.core.sharded", "syre.core.rounding"),
    ("syre.core.scale",),
    ("syre.core.anchor", "syre.core.decay"),
    ("syre.core.once", "syre.core.follow"),
    ("syre.core.forms",),
    ("syre.core.handle",),
    ("syre.core.attach", "syre.core.frozen"),
    ("syre.core.parametrization",),
    ("syre.core",),
    ("syre.metrics",),
    ("syre.diagnostics",),
    ("syre.models",),
    ("syre.data",),
    ("syre.learners.protocol", "syre.learners.batched"),
    ("syre.learners.repeatable", "syre.learners.single"),
    ("syre.learners.ensemble",),
    ("syre.learners",),
    ("syre.regularizers", "syre.optim", "syre.batches"),
    ("syre.rivals",),
    ("syre.trainer",),
    ("syre.tasks", "syre.theory"),
    ("syre.rl",),
)
NO_APPLICATION = ("hydra", "omegaconf", "wandb", "pandas", "matplotlib", "experiments")
NO_TRAINING = ("torch", "syre", "hydra", "omegaconf", "wandb")
ROOMS = {  # of experiments: what a file there may import of experiments; the doors may import all
    "experiments.analysis": ("experiments.analysis",),
    "experiments.figures": ("experiments.analysis", "experiments.figures"),
    "experiments.engine": ("experiments.engine", "experiments.analysis"),
}
DOORS = ("experiments.run", "experiments.report", "experiments.status")


def within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def imports(path: Path, module: str) -> set[str]:
    """Every module a file imports, at its top or inside a function; `from a import b` is a.b."""
    parents = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) + 1 - node.level] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def core_violations(names: set[str]) -> set[str]:
    return {n for n in names if not within(n, ("torch", "numpy", "syre.core", *sys.stdlib_module_names))}


def layer_violations(names: set[str], module: str) -> set[str]:
    whole = LAYERS.index(("syre.diagnostics",))  # syre itself, and its command line
    layer = next((k for k, packages in enumerate(LAYERS) if within(module, packages)), whole)
    allowed = ("syre.__version__", *(package for packages in LAYERS[: layer + 1] for package in packages))
    return {n for n in names if within(n, ("syre",)) and not within(n, allowed)}


def modules(folder: str) -> dict[str, Path]:
    """Dotted name -> file, of all files below a folder."""
    files = {path: path.relative_to(ROOT).with_suffix("").parts for path in sorted((ROOT / folder).rglob("*.py"))}
    return {".".join(parts).removesuffix(".__init__"): path for path, parts in files.items()}


def room_violations(names: set[str], module: str) -> set[str]:
    room = next(room for room in ROOMS if within(module, (room,)))
    ours = {n for n in names if within(n, ("experiments",)) and not within(n, ROOMS[room]) and n not in ROOMS}
    return ours | {n for n in names if room != "experiments.engine" and within(n, NO_TRAINING)}


LIBRARY, APPLICATION = modules("syre"), modules("experiments")
NO_TORCH = [name for name in APPLICATION if within(name, ("experiments.analysis", "experiments.figures"))]


@pytest.mark.parametrize("module", [name for name in LIBRARY if within(name, ("syre.core",))])
def test_core_imports_only_torch_numpy_and_the_standard_library(module):
    assert core_violations(imports(LIBRARY[module], module)) == set()


@pytest.mark.parametrize("module", LIBRARY)
def test_the_library_points_one_way_and_knows_no_application(module):
    names = imports(LIBRARY[module], module)
    assert layer_violations(names, module) == set()
    assert {n for n in names if within(n, NO_APPLICATION)} == set()


def test_every_file_of_the_library_has_a_layer():
    assert {name for name in LIBRARY if not any(within(name, packages) for packages in LAYERS)} == {
        "syre",
        "syre.__main__",
    }


@pytest.mark.parametrize("module", [name for name in APPLICATION if within(name, tuple(ROOMS))])
def test_a_room_imports_only_from_those_below_it(module):
    assert room_violations(imports(APPLICATION[module], module), module) == set()


def test_every_file_of_the_application_is_in_a_room_or_a_door():
    assert {name for name in APPLICATION if not within(name, tuple(ROOMS))} == {"experiments", *DOORS}


def loaded(statement: str, suspects: tuple[str, ...]) -> list[str]:
    """Which of the suspects a fresh interpreter has loaded after the statement."""
    code = f"import sys; {statement}; print(*[name for name in {suspects} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_redrawing_loads_nothing_that_trains_not_even_at_second_hand():
    assert loaded(f"import {', '.join([*NO_TORCH, 'experiments.report'])}", NO_TRAINING) == []


def test_importing_the_library_loads_torch_and_nothing_heavier():
    heavy = ("torchvision", "sklearn", "scipy", "pandas", "matplotlib", "hydra", "omegaconf", "wandb", "torch")
    assert loaded("import syre", heavy) == ["torch"]  # torch itself is the control


@pytest.mark.slow
def test_what_is_finished_is_found_without_torch(tmp_path):
    words = ["model.hidden=[4]", "train.epochs=1", f"outputs={tmp_path / 'outputs'}"]
    (tmp_path / "without").mkdir()
    (tmp_path / "without/torch.py").write_text("raise ImportError('torch is not to be imported')")
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])

    def run(*words: str, first: str = "") -> subprocess.CompletedProcess:
        command, env = [sys.executable, "-m", "experiments.run", *words], {**os.environ, "PYTHONPATH": first + path}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)

    without = f"{tmp_path / 'without'}{os.pathsep}"
    assert "torch is not to be imported" in run(*words, first=without).stderr  # control
    assert run("-m", *words, "seed=0,1", "batched=[seed]").returncode == 0
    (file,) = (tmp_path / "outputs/run/groups").glob("*.json")
    group = f"group='{file.stem}'"
    for again in (words, ["-m", *words, "seed=0,1"], [*words, group]):
        done = run(*again, first=without)
        assert done.returncode == 0, done.stderr


def test_control_planted_violations_are_found(tmp_path):
    file = tmp_path / "attach.py"
    file.write_text(
        "import math, pandas.api\nfrom ..trainer import train\ndef late():\n    from experiments import run\n"
    )
    names = imports(file, "syre.core.attach")
    assert names == {"math", "pandas.api", "syre.trainer.train", "experiments.run"}
    assert core_violations(names) == {"pandas.api", "syre.trainer.train", "experiments.run"}
    assert layer_violations(names, "syre.core.attach") == {"syre.trainer.train"}
    assert {n for n in names if within(n, NO_APPLICATION)} == {"pandas.api", "experiments.run"}
    package = tmp_path / "__init__.py"
    package.write_text("from . import attach\nfrom .. import trainer\n")
    assert imports(package, "syre.core") == {"syre.core.attach", "syre.trainer"}


@pytest.mark.parametrize(
    ("module", "line", "wrong"),
    [
        ("syre.core.names", "from .anchor import fan_in", "syre.core.anchor.fan_in"),
        ("syre.core.anchor", "from syre.core.attach import attach", "syre.core.attach.attach"),
        ("syre.core.decay", "from . import SyreHandle", "syre.core.SyreHandle"),
        ("syre.core.frozen", "from . import parametrize", "syre.core.parametrize"),
        ("syre.core.attach", "from .parametrization import merge", "syre.core.parametrization.merge"),
        ("syre.core.parametrization", "from syre.models import MLP", "syre.models.MLP"),
        ("syre.metrics.spectra", "from syre.diagnostics import weights", "syre.diagnostics.weights"),
        ("syre.diagnostics.weights", "from syre.models import MLP", "syre.models.MLP"),
        ("syre.__main__", "from syre.models import MLP", "syre.models.MLP"),
        ("syre.models.base", "from syre.learners import Replica", "syre.learners.Replica"),
        ("syre.learners.protocol", "from syre.learners.single import Single", "syre.learners.single.Single"),
        ("syre.learners.batched", "from syre.optim import SGD", "syre.optim.SGD"),
        ("syre.learners.repeatable", "from syre.learners.ensemble import vmap", "syre.learners.ensemble.vmap"),
        ("syre.learners.single", "from syre.learners import Ensemble", "syre.learners.Ensemble"),
        ("syre.learners.ensemble", "from syre.regularizers import Syre", "syre.regularizers.Syre"),
        ("syre.learners", "from syre.batches import Batches", "syre.batches.Batches"),
        ("syre.regularizers", "from syre.rivals import Redo", "syre.rivals.Redo"),
        ("syre.rivals.redo", "from syre import trainer", "syre.trainer"),
        ("syre.trainer", "from syre.tasks import Ridge", "syre.tasks.Ridge"),
        ("syre.tasks.regression", "from syre.rl import PPO", "syre.rl.PPO"),
    ],
)
def test_control_a_planted_violation_in_each_room_of_the_library_is_found(tmp_path, module, line, wrong):
    file = tmp_path / LIBRARY[module].name
    file.write_text(f"{LIBRARY[module].read_text()}\ndef late():\n    {line}\n")
    assert layer_violations(imports(file, module), module) == {wrong}


@pytest.mark.parametrize(
    ("module", "line", "wrong"),
    [
        ("experiments.analysis.stats", "from experiments.figures import fig4", "experiments.figures.fig4"),
        ("experiments.analysis.stats", "import torch", "torch"),
        ("experiments.figures.fig4", "from experiments.engine.config import Run", "experiments.engine.config.Run"),
        ("experiments.figures.fig4", "from syre import attach", "syre.attach"),
        ("experiments.engine.store", "from experiments import report", "experiments.report"),
        ("experiments.engine.store", "from experiments.figures import fig4", "experiments.figures.fig4"),
    ],
)
def test_control_a_planted_violation_in_each_room_is_found(tmp_path, module, line, wrong):
    file = tmp_path / "planted.py"
    file.write_text(APPLICATION[module].read_text())
    assert room_violations(imports(file, module), module) == set()
    file.write_text(f"{file.read_text()}\ndef late():\n    {line}\n")
    assert room_violations(imports(file, module), module) == {wrong}
