"""Every recipe of docs/frameworks.md runs, twice: the second time it goes on from what the first has saved."""

import csv
import re
from pathlib import Path

import pytest
import torch

import syre
from syre.core import canonical_parameters

TEXT = (Path(__file__).parents[2] / "docs/frameworks.md").read_text()
INTRO, *SECTIONS = re.split(r"^## ", TEXT, flags=re.MULTILINE)
SECTIONS = {section.partition("\n")[0]: section for section in SECTIONS}
ELSEWHERE = ["FSDP2", "W&B sweeps"]  # need nothing but .venv: tests/test_recipes.py
WANTED = ["A plain loop", "HF Trainer", "Lightning", "accelerate", "timm", "stable-baselines3", "PEFT"]


def blocks(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_there_is_a_section_for_each_and_no_block_is_longer_than_15_lines():
    assert sorted(SECTIONS) == sorted([*WANTED, *ELSEWHERE, "Watch"])
    for name, section in SECTIONS.items():
        assert ("syre.Watch(" if name == "Watch" else "syre.attach(") in "".join(blocks(section)), name
        for block in blocks(section):
            assert block.count("\n") <= 15, block


def run(section, monkeypatch):
    """Run its blocks; what they attached: (model, anchors), of anchors ten times as large as the init."""
    attached, attach = [], syre.attach

    def spy(optimizer, model, **options):
        handle = attach(optimizer, model, **options)
        attached.append((model, handle.anchors))
        return handle

    monkeypatch.setattr(syre, "attach", spy)
    names = {"__name__": "recipe"}
    for block in (*blocks(INTRO), *blocks(section)):
        exec(compile(block.replace("sigma=0.01", "sigma=10.0"), "docs/frameworks.md", "exec"), names)
    monkeypatch.setattr(syre, "attach", attach)
    return attached


def shifts(model, anchors):
    """How often the weights have been shifted: their size in units of b, for a training that moves them little."""
    parameters = canonical_parameters(model)
    w, b = (torch.cat([of[name].detach().flatten() for name in anchors]) for of in (parameters, anchors))
    return (w @ b / (b @ b)).item()


@pytest.mark.parametrize("name", WANTED)
def test_its_recipes_run_and_go_on_and_the_weights_are_shifted_once(name, monkeypatch):
    for time in ("fresh", "resumed"):
        torch.manual_seed(len(time))
        attached = run(SECTIONS[name], monkeypatch)
        assert len(attached) == "".join(blocks(SECTIONS[name])).count("syre.attach(")
        for model, anchors in attached:
            assert anchors
            assert abs(shifts(model, anchors) - 1) < 0.2, time


def test_control_without_the_shift_it_would_be_seen(monkeypatch):
    section = SECTIONS["A plain loop"].replace("seed=0)", 'seed=0, start="keep")')
    ((model, anchors),) = run(section, monkeypatch)
    assert abs(shifts(model, anchors)) < 0.2


def test_its_watches_measure_and_log_in_every_framework(monkeypatch, capsys):
    watches, watch = [], syre.Watch

    def spy(optimizer, model, **options):
        watches.append(watch(optimizer, model, budget=None, **options))
        return watches[-1]

    monkeypatch.setattr(syre, "Watch", spy)
    names = {"__name__": "recipe"}
    for block in (*blocks(INTRO), *blocks(SECTIONS["Watch"])):
        exec(compile(block, "docs/frameworks.md", "exec"), names)
    plain, wandb, lightning, trainer = watches
    assert "{'syre/step': 2, 'syre/effective': " in capsys.readouterr().out
    assert wandb.history[0]["syre/step"] == 0
    assert [one["syre/step"] for one in plain.history] == [0, 2, 4]
    for one in (lightning, trainer):
        assert [numbers["syre/step"] for numbers in one.history] == [0, 2, 4, 6, 8]
    (file,) = Path("watched").rglob("metrics.csv")
    rows = list(csv.DictReader(file.open()))
    assert [float(row["syre/step"]) for row in rows if row["syre/step"]] == [2, 4, 6, 8]
    logged = [entry for entry in names["trainer"].state.log_history if "syre/step" in entry]
    assert [entry["syre/step"] for entry in logged] == [2, 4, 6, 8]
    assert logged[-1]["syre/effective"] == trainer.latest["syre/effective"]
