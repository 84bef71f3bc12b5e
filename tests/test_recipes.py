"""The recipes of docs/frameworks.md that need no framework: FSDP2 over two processes, and sweeps of W&B."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
import yaml
from wandb.apis.public.sweeps import _validate_config_and_fill_distribution

import syre

ROOT = Path(__file__).parents[1]
INTRO, *REST = re.split(r"^## ", (ROOT / "docs/frameworks.md").read_text(), flags=re.MULTILINE)
SECTIONS = {section.partition("\n")[0]: section for section in REST}

# After the recipe of FSDP2: what all ranks have, as one process would see it, and the anchors of one process.
SEEN = """
from torch.distributed.tensor import DTensor
from syre.core.sharded import whole
parts = {name: (whole(p.detach()), p) for name, p in model.named_parameters()}
assert all(isinstance(p, DTensor) and p.to_local().numel() < w.numel() for w, p in parts.values())
plain = Net()
anchors = syre.attach(torch.optim.AdamW(plain.parameters(), weight_decay=1e-2), plain, sigma=SIGMA, seed=0).anchors
w, b = (torch.cat([t.flatten() for t in of]) for of in ([parts[n][0] for n in anchors], anchors.values()))
steps = {int(s["step"]) for s in optimizer.state.values()}
if dist.get_rank() == 0:
    print("shift", (w @ b / (b @ b)).item(), "steps", *steps)
"""


def blocks(name: str, language: str = "python") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (SECTIONS.get(name) or INTRO), re.DOTALL)


# ---- FSDP2 -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
@pytest.mark.skipif(torch.cuda.is_available(), reason="two ranks would need two GPUs; over gloo it is the same script")
def test_the_recipe_of_fsdp2_trains_and_goes_on_over_two_processes_and_shifts_once(tmp_path: Path) -> None:
    text = "".join([*blocks("intro"), *blocks("FSDP2")])
    end = "dist.destroy_process_group()\n"
    assert text.endswith(end)
    text = text.replace("sigma=0.01", "sigma=10.0")  # so that the weights show what the shift was
    script = tmp_path / "train.py"
    script.write_text(text.removesuffix(end) + SEEN.replace("SIGMA", "10.0") + end)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for steps in (2, 4):  # 32 samples, 8 of them a step on each of two ranks; the second time it goes on
        done = subprocess.run(launch, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr
        (found,) = re.findall(r"^shift (\S+) steps (\S+)$", done.stdout, re.MULTILINE)
        assert abs(float(found[0]) - 1) < 0.2
        assert int(found[1]) == steps


# ---- sweeps of W&B ---------------------------------------------------------------------------------------------------


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of the recipe's script after it has run, offline."""
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    names: dict[str, Any] = {"__name__": "recipe"}
    try:
        for block in [*blocks("intro"), *blocks("W&B sweeps")]:
            exec(compile(block, "docs/frameworks.md", "exec"), names)
    finally:
        wandb.teardown()
    return names


@pytest.mark.slow
def test_the_script_of_the_sweep_trains_with_what_an_agent_chooses(tmp_path, monkeypatch):
    attached, attach = [], syre.attach
    monkeypatch.setattr(syre, "attach", lambda *args, **how: attached.append(attach(*args, **how)) or attached[-1])
    torch.manual_seed(0)
    assert run(tmp_path, monkeypatch)["optimizer"].param_groups[0]["weight_decay"] == 0.01
    # as an agent of W&B tells it
    (tmp_path / "chosen.yaml").write_text("wandb_version: 1\nsigma: {value: 0.5}\nweight_decay: {value: 0.03}\n")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(tmp_path / "chosen.yaml"))
    assert run(tmp_path, monkeypatch)["optimizer"].param_groups[0]["weight_decay"] == 0.03
    default, chosen = (handle.anchors["layers.0.weight"] for handle in attached)
    assert torch.allclose(chosen, default / 2)
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 2


def test_its_yaml_is_a_sweep_that_wandb_takes_and_of_the_settings_that_the_script_has():
    (text,) = blocks("W&B sweeps", "yaml")
    config = yaml.safe_load(text)
    assert _validate_config_and_fill_distribution(config) == config
    (script,) = blocks("W&B sweeps")
    assert all(f'choice["{name}"]' in script and f'"{name}": ' in script for name in config["parameters"])
    assert f'run.log({{"{config["metric"]["name"]}": ' in script


@pytest.mark.slow
def test_the_grid_without_an_account_trains_and_is_kept_offline(tmp_path):
    (command,) = blocks("W&B sweeps", "sh")
    python, *words = command.split()
    assert python == ".venv/bin/python"
    done = subprocess.run(
        [sys.executable, *words, "train.epochs=1", "model.hidden=[8]", f"outputs={tmp_path}"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("mine: 4 runs at scale cpu, 4 to train")
    assert len(list(tmp_path.glob("mine/wandb/offline-run-*"))) >= 4
