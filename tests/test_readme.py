"""The README does what it says: its script runs, its commands exist, its table is the one of the results."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from experiments import pages
from experiments.summaries import summary_table

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
LAUNCHER = yaml.safe_load((ROOT / "configs/hydra/launcher/slurm.yaml").read_text())
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for name, text in BLOCKS if name == language]


@pytest.mark.parametrize(("place", "says"), list(enumerate(["syre.attach", "gymnasium.make"])))
def test_its_scripts_run(place: int, says: str) -> None:
    script = blocks("python")[place]
    assert says in script
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_syre_in_the_script_does_something() -> None:
    """The control: without weight decay the same script stops, so its `attach` is not a no-op."""
    script, _ = blocks("python")
    broken = script.replace("weight_decay=1e-2", "weight_decay=0")
    done = subprocess.run([sys.executable, "-c", broken], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode != 0
    assert "weight_decay" in done.stderr


@pytest.mark.parametrize("command", [line.split("#")[0].strip() for text in blocks("sh") for line in text.splitlines()])
def test_its_make_commands_exist(command: str) -> None:
    first = command.removeprefix("CPUS=4 scripts/slurm_local.sh run ")
    if first.startswith("make"):
        subprocess.run(f"{first} --dry-run", shell=True, check=True, cwd=ROOT, capture_output=True)
        return
    run = r"\.venv/bin/(python|torchrun --nproc-per-node \d+) -m experiments\.run "
    assert re.match(rf"{run}|\.venv/bin/wandb sync outputs/\w+/wandb/offline-run-\*$", command)
    assert set(re.findall(r"hydra\.launcher\.(\w+)=", command)) <= set(LAUNCHER)


def test_its_table_is_that_of_the_committed_results() -> None:
    figures = [pages.summary(pages.judge(name, ROOT / "results")) for name in pages.available(ROOT / "results")]
    assert figures
    assert summary_table(figures) in TEXT
