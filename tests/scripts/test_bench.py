"""The benchmark runs and prints every row; what it measures is not judged."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.physics import needs_bullet

ROOT = Path(__file__).parents[2]


def bench(*words: str) -> list[str]:
    command = [sys.executable, "-m", "scripts.bench", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.slow
def test_quick_prints_every_row():
    lines = [line for name in ("step", "watch", "memory", "ensemble") for line in bench("--quick", "--only", name)]
    assert lines[0].startswith("torch ")
    assert "1 threads" in lines[0]
    for form in ("attach", "parametrize"):
        rows = [line for line in lines if line.startswith(f"  {form} / plain:")]
        assert len(rows) == 3 * 2  # networks and batches x optimizers
        assert all(("<= 1.0" in row) == (form == "attach") for row in rows)
    assert sum(line.startswith("  Watch / plain:") and "<= 1.01" in line for line in lines) == 2
    for base in ("single", "plain"):
        assert sum(line.startswith(f"  {base} / ensemble:") for line in lines) == 3 * 3 * 2
    assert sum(">= 10" in line for line in lines) == 2
    memory = [float(line.split()[-3]) for line in lines if " / parameters: " in line]
    assert memory == [1.0, 1.0, 0.5, 0.5] * 2  # not a timing: exact


@pytest.mark.slow
def test_quick_says_how_many_seconds_a_diagnosis_takes():
    rows = [line for line in bench("--quick", "--only", "diagnose") if line.startswith("  syre.diagnose / ")]
    assert [row.split(": ")[1].split()[0] for row in rows] == ["ResNet50,", "GPT-2"]
    assert all(" s, a step " in row for row in rows)


@pytest.mark.slow
def test_quick_prints_a_row_for_each_method_against_lost_plasticity():
    rows = [line.split()[0] for line in bench("--quick", "--only", "rivals") if " / plain: CNN of figure 11" in line]
    units = ["redo", "continual_backprop", "self_normalized_resets"]
    assert rows == ["syre", "l2_init", "shrink_perturb", "dropout", *units, "weight_clipping", "spectral", "noisy"]


@pytest.mark.slow
def test_quick_prints_a_row_for_each_network_on_images():
    rows = [line for line in bench("--quick", "--only", "images") if line.startswith("  textbook / ours: ")]
    assert [row.split(":")[1].split(",")[0].strip() for row in rows] == ["ResNet18", "ViT", "SimCLR"]
    assert all(">= 1." in row or ">= 5" in row for row in rows)
    assert all("images/s" in row and "% of the peak" in row for row in rows)


@needs_bullet
@pytest.mark.slow
def test_quick_prints_three_rows_for_each_physics():
    rows = [line for line in bench("--quick", "--only", "rl") if line.endswith("steps/s")]
    assert [row.split(":")[1].split()[0] for row in rows] == ["MuJoCo"] * 3 + ["PyBullet"] * 3
    assert [">= 1.3" in row for row in rows] == [True, False, False] * 2
