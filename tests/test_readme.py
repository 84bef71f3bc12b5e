"""The README and docs/ do what they say: scripts and commands run, links lead somewhere, tables are the results'."""

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
from checkout import ROOT, call, checkout, tracked
from hydra import compose, initialize_config_dir

from experiments.analysis import listing, pages
from experiments.analysis.overview import found, overview
from experiments.analysis.summaries import summary_table
from experiments.engine.config import Run, identity
from experiments.engine.experiment import Experiment
from scripts.smoke import names

README, *DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (README, *DOCS)}
TEXT = PAGES["README.md"]
LAUNCHER = yaml.safe_load((ROOT / "configs/hydra/launcher/slurm.yaml").read_text())
SCRIPTS = {"README.md": "syre.attach", "docs/rl.md": "gymnasium.make"}  # pages with a script, and what it is about
OTHERS_RUN = {  # by these tests
    "docs/PYPI.md": "tests/test_package.py",  # the README's
    "docs/add_a_method.md": "tests/rivals/test_added_method.py",
    "docs/diagnose.md": "tests/diagnostics/test_docs.py",
    "docs/extend.md": "tests/test_extend.py",
    "docs/frameworks.md": "tests/frameworks/test_docs.py",
}


def blocks(language: str, *names: str) -> list[str]:
    """The blocks of code in a language, of some pages or of all."""
    found = [re.findall(r"```(\w+)\n(.*?)```", PAGES[name], re.DOTALL) for name in names or PAGES]
    return [text for each in found for name, text in each if name == language]


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_its_scripts_run(name: str) -> None:
    (script,) = blocks("python", name)
    assert SCRIPTS[name] in script
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_a_script_of_any_page_is_run_by_a_test() -> None:
    assert {name for name in PAGES if blocks("python", name)} == {*SCRIPTS, *OTHERS_RUN}
    for page, test in OTHERS_RUN.items():
        assert page in (ROOT / test).read_text(), test


@pytest.mark.slow
def test_syre_in_the_script_does_something() -> None:
    """The control: without weight decay the same script stops, so its `attach` is not a no-op."""
    (script,) = blocks("python", "README.md")
    broken = script.replace("weight_decay=1e-2", "weight_decay=0")
    done = subprocess.run([sys.executable, "-c", broken], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode != 0
    assert "weight_decay" in done.stderr


def headings(path: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    found = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("name", PAGES)
def test_its_links_lead_to_what_is_committed(name: str) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#\s]*)(?:#([^)\s]+))?\)", PAGES[name])
    links += [(source, "") for source in re.findall(r'<img src="([^"]+)"', PAGES[name])]
    for target, anchor in links:
        path = (ROOT / name).parent / target if target else ROOT / name
        assert path.resolve().relative_to(ROOT).as_posix() in tracked() or path.is_dir(), target
        assert not anchor or anchor in headings(path), f"{target}#{anchor}"


# ---- its commands ----------------------------------------------------------------------------------------------------

ADDED = ("docs/add_a_method.md", "docs/diagnose.md", "docs/extend.md")  # whose commands their own tests run
SHELL = [
    re.split(" +# ", line)[0].strip()
    for name in PAGES
    if name not in ADDED
    for text in blocks("sh", name)
    for line in text.splitlines()
]
PROSE = [re.sub(r"```.*?```", "", text, flags=re.DOTALL) for name, text in PAGES.items() if name not in ADDED]
INLINE = re.findall(r"`((?:make\b|wandb |scripts/|\.venv/)[^`]*)`", "\n".join(PROSE))
TABLE = re.findall(r"^\| .* \[`(make \w+)`\]\(\S+\) \|$", TEXT, re.MULTILINE)
COMMANDS = sorted({*SHELL, *(" ".join(text.split()) for text in INLINE)})
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
    r"make env": "the environment that these tests run in; tests/scripts/test_env.py builds others",
    r"make plots": "test_figures.py draws each of them again",
    r"make fig6 ARGS=.data\.backend=mujoco.": "`make smoke` trains it so where there is no PyBullet",
    r"make fig5 ARGS=.adopt=true .*": "no runs are committed at smoke scale; test_store.py adopts its own",
    r"make data DATA=mnist|\.venv/bin/python scripts/data\.py mnist --root FOLDER": "a network; tests/data has one",
    r"make gpu .*": "a GPU; tests/scripts/test_gpu_queue.py does without",
    r"(make|\.venv/bin/python) .*(LAUNCHER|hydra/launcher)=slurm.*": "a cluster; see test_slurm.py",
    r"CPUS=4 scripts/slurm_local\.sh run make fig4 .*": "a SLURM; below, where there is one",
    r"scripts/slurm_local\.sh install": "it installs packages; tests/scripts/test_slurm_local.py has stand-ins",
    r"\.venv/bin/torchrun .*": "four GPUs and CIFAR-10; tests/experiments/engine/test_torchrun.py has neither",
    r"(\.venv/bin/)?wandb (agent|sync|login|sweep).*": "an account",
    r"make bench": "minutes of measuring; tests/scripts/test_bench.py",
    r"make site": "an environment of its own; tests/site builds it",
    r"make test-frameworks": "another part of what CI runs",
    r"pip install (\.|syre-torch)": "test_package.py builds the wheel, and installs it into an environment of its own",
}


def is_one_of(command: str, patterns: Iterable[str]) -> bool:
    return any(re.fullmatch(pattern, command) for pattern in patterns)


CALLED = [command for command in COMMANDS if is_one_of(command, RUN)]
OTHERS = [command for command in COMMANDS if command not in CALLED]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkout(tmp_path_factory.mktemp("clone"))


def at_smoke_scale(command: str) -> str:
    if re.match(r"(.*run )?make fig", command):
        return f"{command} SCALE=smoke"
    return f"{command} scale=smoke" if "experiments.run" in command else command


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
        if sweep:
            check(shlex.split(words))
    program = command.removeprefix("CPUS=4 ").split()[0].removeprefix(".venv/bin/")
    assert (ROOT / program).exists() or shutil.which(program, path=f"{sys.prefix}/bin:{os.environ['PATH']}")
    assert [word for word in re.findall(r"scripts/\S+", command) if not (ROOT / word).exists()] == []


def test_make_smoke_trains_what_the_commands_of_its_table_train() -> None:
    lines = "\n".join(line for command in TABLE for line in dry(f"{command} SCALE=smoke"))
    assert any("scripts.smoke --launcher local" in line for line in dry("make smoke"))
    assert len(TABLE) > 20
    own = {"ant"} - set(names())  # which has packages of its own
    assert set(re.findall(r"experiments\.run -m experiment=(\w+) scale=smoke ", lines)) - own <= set(names())


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
    for name, said in {"found": found, "figures": summary_table}.items():
        assert f"<!-- {name} -->\n{said(figures)}\n<!-- /{name} -->\n" in TEXT
    for name, said in {"REPORT.md": overview, "claims.csv": listing.claims, "figures.csv": listing.figures}.items():
        assert said(figures) == (ROOT / "results" / name).read_text(), name
