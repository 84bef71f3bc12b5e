"""The README does what it says: its scripts and its commands run, its table is the one of the results."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir

from experiments.analysis import pages
from experiments.analysis.overview import first_sentence, overview
from experiments.analysis.summaries import summary_table
from experiments.engine.config import Run, identity
from experiments.engine.experiment import Experiment

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
LAUNCHER = yaml.safe_load((ROOT / "configs/hydra/launcher/slurm.yaml").read_text())
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for name, text in BLOCKS if name == language]


@pytest.mark.slow
@pytest.mark.parametrize(("place", "says"), list(enumerate(["syre.attach", "gymnasium.make"])))
def test_its_scripts_run(place: int, says: str) -> None:
    script = blocks("python")[place]
    assert says in script
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_syre_in_the_script_does_something() -> None:
    """The control: without weight decay the same script stops, so its `attach` is not a no-op."""
    script, _ = blocks("python")
    broken = script.replace("weight_decay=1e-2", "weight_decay=0")
    done = subprocess.run([sys.executable, "-c", broken], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode != 0
    assert "weight_decay" in done.stderr


# ---- its commands ----------------------------------------------------------------------------------------------------

SHELL = [line.split("  #")[0].strip() for text in blocks("sh") for line in text.splitlines()]
INLINE = [" ".join(text.split()) for text in re.findall(r"`((?:make\b|wandb |scripts/|\.venv/)[^`]*)`", TEXT)]
TABLE = re.findall(r"^\| \[`(make \w+)`\]", TEXT, re.MULTILINE)
COMMANDS = sorted({*SHELL, *INLINE})
RUN = (
    *(r"make fig4", r"make fig[45] (SCALE=smoke|ARGS=.regularizer.*)", r"make status( .*)?", r"make"),
    r"\.venv/bin/python -m experiments\.run (?!.*slurm).*",
)
LEFT_OUT = {  # and why
    r"make (check|test|test SLURM=1 BROWSER=1)": "they call these tests",
    r"make (fig\d+b?(_\w+)?|table\d(_\w+)?|ablation|ant|diagnostics|readings|sigma_map|theory)": (
        "`make smoke`, a part of `make test`, trains them all"
    ),
    r"make (cloned|gpt|hurts|rivals)": "`make smoke` trains these too",
    r"make plots": "test_figures.py draws each of them again",
    r"make fig5 ARGS=.adopt=true .*": "no runs are committed at smoke scale; test_store.py adopts its own",
    r"make data DATA=mnist": "the network; tests/data fetches from a server of its own",
    r"make gpu .*": "a GPU; tests/scripts/test_gpu_queue.py does without",
    r"(make|\.venv/bin/python) .*(LAUNCHER|hydra/launcher)=slurm.*": "a cluster; see test_slurm.py",
    r"CPUS=4 scripts/slurm_local\.sh run make fig4 .*": "a SLURM; below, where there is one",
    r"scripts/slurm_local\.sh install": "it installs packages; tests/scripts/test_slurm_local.py has stand-ins",
    r"\.venv/bin/torchrun .*": "four GPUs and CIFAR-10; tests/experiments/engine/test_torchrun.py has neither",
    r"(\.venv/bin/)?wandb (sync|login|sweep).*": "an account",
    r"pip install syre-torch": "the network; test_package.py builds and installs the wheel",
}


def is_one_of(command: str, patterns: Iterable[str]) -> bool:
    return any(re.fullmatch(pattern, command) for pattern in patterns)


CALLED = [command for command in COMMANDS if is_one_of(command, RUN)]
OTHERS = [command for command in COMMANDS if command not in CALLED]
# What `make` was called with, where it is what calls these tests, is not meant for the commands.
OUTER = r"M\w*FLAGS|MAKE\w*|ARGS|DATA|FIG|LAUNCHER|PYTHON|SCALE|SLURM|BROWSER"
ENVIRONMENT = {name: value for name, value in os.environ.items() if not re.fullmatch(OUTER, name)}


def tracked() -> list[str]:
    """The files of a clone."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of its own, whose .venv is complete: it has links to all that is in that of these tests."""
    root = tmp_path_factory.mktemp("clone")
    for name in tracked():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, root / name)
    (root / ".venv").mkdir()
    for path in Path(sys.prefix).iterdir():
        if path.name != ".complete":
            (root / ".venv" / path.name).symlink_to(path)
    (root / ".venv/.complete").write_text(f"{root}/.venv/bin/python\n")
    return root


def at_smoke_scale(command: str) -> str:
    if re.match(r"(.*run )?make fig", command):
        return f"{command} SCALE=smoke"
    return f"{command} scale=smoke" if "experiments.run" in command else command


def call(command: str, clone: Path) -> subprocess.CompletedProcess:
    return subprocess.run(["bash", "-c", command], cwd=clone, env=ENVIRONMENT, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.xdist_group("readme")
@pytest.mark.parametrize("command", CALLED)
def test_its_commands_end_well_and_leave_the_tracked_files_as_they_are(command: str, clone: Path) -> None:
    done = call(at_smoke_scale(command), clone)
    assert done.returncode == 0, done.stderr
    assert [name for name in tracked() if (clone / name).read_bytes() != (ROOT / name).read_bytes()] == []


@pytest.mark.slurm
@pytest.mark.xdist_group("slurm")
def test_its_command_for_a_slurm_of_one_node_ends_well(clone: Path) -> None:
    shutil.rmtree(clone / "outputs", ignore_errors=True)  # what `make fig4` has trained
    (command,) = (text for text in SHELL if " scripts/slurm_local.sh run " in text)
    done = call(at_smoke_scale(command), clone)
    if done.returncode == 77:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    assert list(clone.glob("outputs/fig4/slurm/*_submission.sh"))


def test_every_command_is_called_or_left_out_for_a_reason() -> None:
    assert [command for command in OTHERS if not is_one_of(command, LEFT_OUT)] == []
    assert [pattern for pattern in (*RUN, *LEFT_OUT) if not any(re.fullmatch(pattern, text) for text in COMMANDS)] == []


def dry(command: str) -> list[str]:
    """The lines of what a command does, itself or through make."""
    command = command.removeprefix("CPUS=4 scripts/slurm_local.sh run ")
    done = call(f"{command} --dry-run", ROOT) if command.startswith("make") else None
    assert done is None or done.returncode == 0, done.stderr
    return done.stdout.splitlines() if done else [command]


def check(words: list[str]) -> None:
    """Compose the runs of an experiment, or the one run that there is; every word has to be one that is known."""
    words = [word for word in words if "=" in word and not word.startswith("-")]
    names = [word.removeprefix("experiment=") for word in words if word.startswith("experiment=")]
    settings = [word for word in words if not word.startswith(("experiment=", "hydra"))]
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        compose("config", [word for word in words if word.startswith("hydra/")])
        alone = None if names else Run(config=identity(compose("config", settings)))
        runs = [alone] if alone else Experiment.load(names[0], settings).runs
    for run in runs:
        run.check()
    assert set(re.findall(r"hydra\.launcher\.(\w+)=", " ".join(words))) <= set(LAUNCHER)


@pytest.mark.parametrize("command", [command for command in OTHERS if command not in TABLE])
def test_what_is_left_out_is_made_of_what_there_is(command: str) -> None:
    for line in dry(command):
        _, sweep, words = line.partition("-m experiments.run ")
        if sweep and "$name" not in words:  # that is of `make smoke`, which trains them all
            check(shlex.split(words))
    program = command.removeprefix("CPUS=4 ").split()[0].removeprefix(".venv/bin/")
    assert (ROOT / program).exists() or shutil.which(program, path=f"{sys.prefix}/bin:{os.environ['PATH']}")
    assert [word for word in re.findall(r"scripts/\S+", command) if not (ROOT / word).exists()] == []


def test_make_smoke_trains_what_the_commands_of_its_table_train() -> None:
    lines = "\n".join(line for command in TABLE for line in dry(f"{command} SCALE=smoke"))
    (smoke,) = re.findall(r"for name in (.*); do only=", "\n".join(dry("make smoke")))
    assert len(TABLE) > 20
    assert set(re.findall(r"experiments\.run -m experiment=(\w+) scale=smoke ", lines)) <= set(smoke.split())


def test_a_figure_at_smoke_scale_has_no_workers_of_its_own_and_no_place_in_wandb_unless_they_are_asked_for() -> None:
    def launcher(command: str) -> set[str]:
        return set(re.findall(r"hydra/launcher=(\w+)", "\n".join(dry(command))))

    assert launcher("make fig5 SCALE=smoke") == {"local"}
    assert launcher("make fig5") == {"joblib"}
    assert launcher("make fig5 SCALE=smoke LAUNCHER=slurm") == {"slurm"}

    def mode(words: str) -> str:
        shell = f"unset WANDB_MODE; {words} --eval 'mode:;@echo mode=$$WANDB_MODE' mode"
        return re.findall("mode=(.*)", call(shell, ROOT).stdout)[-1]

    assert [mode("make SCALE=smoke"), mode("make"), mode("WANDB_MODE=online make SCALE=smoke")] == [
        "disabled",
        "",
        "online",
    ]


@pytest.mark.slow
def test_its_table_is_that_of_the_committed_results() -> None:
    figures = [pages.summary(pages.judge(name, ROOT / "results")) for name in pages.available(ROOT / "results")]
    assert figures
    assert f"{first_sentence(figures)}\n\n{summary_table(figures)}" in TEXT
    assert overview(figures) == (ROOT / "results/REPORT.md").read_text()
