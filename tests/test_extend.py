"""docs/extend.md: its files, written where it says, are found by their names, train, are judged and drawn."""

import csv
import re
from pathlib import Path

import pytest
from checkout import ROOT, call, checkout

TEXT = (ROOT / "docs/extend.md").read_text()
FILES = re.findall(r"^`([\w/]+\.(?:py|yaml))`\n\n```\w+\n(.*?)```", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = [
    re.split(" +# ", line)[0]
    for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
]

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("extend")]


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with its files, none of which was there."""
    root = checkout(tmp_path_factory.mktemp("extended"))
    for name, content in FILES:
        assert not (root / name).exists(), name
        (root / name).write_text(content)
    return root


def test_it_has_a_model_a_data_set_and_a_figure() -> None:
    folders = ["syre/models", "configs/model", "syre/data", "configs/data", "configs/experiment", "experiments/figures"]
    assert [Path(name).parent.as_posix() for name, _ in FILES] == folders
    assert len(COMMANDS) == 4


def test_its_files_pass_lint_and_types(extended: Path) -> None:
    modules = " ".join(name for name, _ in FILES if name.endswith(".py"))
    for command in (f"ruff check {modules}", f"ruff format --check {modules}", f"mypy {modules}"):
        done = call(f".venv/bin/{command}", extended)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_end_well(command: str, extended: Path) -> None:
    done = call(command, extended)
    assert done.returncode == 0, done.stderr


def test_its_figure_has_a_report_with_both_verdicts_and_a_row_in_the_readme(extended: Path) -> None:
    call(COMMANDS[-1], extended)  # nothing is left to train
    assert (extended / "results/tumours/figure.png").stat().st_size > 1000
    report = (extended / "results/tumours/report.md").read_text()
    assert "| **rank** " in report
    assert "| **cost** " in report
    assert "[`make tumours`](results/tumours/report.md)" in (extended / "README.md").read_text()
    with (extended / "results/figures.csv").open(newline="") as file:
        (row,) = [row for row in csv.DictReader(file) if row["figure"] == "tumours"]
    assert re.fullmatch(r"At γ = 1 decay alone ends with rank \d+, syre at σ = 1 with rank \d+\.", row["finding"])


def test_a_wrong_setting_of_its_model_is_one_line(extended: Path) -> None:
    """The control: the settings that it adds are checked as those of any model."""
    done = call(".venv/bin/python -m experiments.run model=residual_mlp data=tumours model.width=0", extended)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: model.width must be an integer > 0, got 0"
