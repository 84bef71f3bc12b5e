"""docs/diagnose.md: its script and its command run. (Its table is held against results/ by the test of the figure.)"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

PAGE = Path(__file__).parents[2] / "docs/diagnose.md"
if not PAGE.exists():
    pytest.skip("of the checkout", allow_module_level=True)
TEXT = PAGE.read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_its_script_goes_from_a_model_to_advice_in_ten_lines(tmp_path, monkeypatch, capsys):
    (script,) = blocks("python")
    lines = [line for line in script.splitlines() if line.strip()]
    assert len(lines) <= 10
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = {}
    exec(compile(script, "docs/diagnose.md", "exec"), names)
    printed = capsys.readouterr().out
    assert names["diagnosis"]["advice"][0]["do"] in printed
    assert all(names["diagnosis"][part] is not None for part in ("features", "training"))
    assert "<html" in (tmp_path / "diagnosis.html").read_text()


@pytest.mark.slow
def test_its_command_reads_a_checkpoint(tmp_path):
    (command,) = blocks("sh")
    words = command.split()
    assert words[:4] == ["python", "-m", "syre", "diagnose"]
    path = tmp_path / "model.pt"
    torch.save(nn.Linear(5, 3).state_dict(), path)
    done = subprocess.run(
        [sys.executable, *words[1:4], str(path), *words[5:]], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "state dict" in done.stdout
    assert (tmp_path / words[-1]).exists()
