"""docs/diagnose.md: its script and its command run, and its numbers are those of the committed evidence."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from syre.diagnostics.advice import WAYS, evidence

TEXT = (Path(__file__).parents[2] / "docs/diagnose.md").read_text()


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


def test_its_numbers_are_those_of_the_evidence():
    section = TEXT.partition("## How good it is")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (with batches|weights alone) \| (.*?) \|$", section, re.MULTILINE)
    assert [way for way, _ in rows] == list(WAYS)[:2]
    for way, cells in rows:
        said, known = [cell.strip() for cell in cells.split("|")], evidence()["diagnostics"][way]
        assert said[0] == f"`{known['score']}`"
        assert float(said[1]) == pytest.approx(known["threshold"], rel=0.01)
        assert said[2] == f"{known['hits']} of {known['collapsed']}"
        assert said[3] == f"{known['false_alarms']} of {known['healthy']}"
