"""Dockerfile and apptainer.def, read without Docker or Apptainer: what they copy, install and run is there."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]
DOCKER, APPTAINER = ((ROOT / name).read_text() for name in ("Dockerfile", "apptainer.def"))
IGNORED = (ROOT / ".dockerignore").read_text().splitlines()
NEEDED = {"git": "experiments/engine/provenance.py", "make": "Makefile"}  # Debian package -> what calls it
INSTRUCTIONS = {"FROM", "RUN", "WORKDIR", "COPY", "CMD"}
SECTIONS = {"files", "post", "runscript"}


def code(text: str) -> list[str]:
    """The lines that are no comments."""
    joined = re.sub(r"\\\n\s*", "", text)
    return [line.strip() for line in joined.splitlines() if line.strip() and not line.strip().startswith("#")]


def instructions() -> list[tuple[str, str]]:
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in code(DOCKER))]


def of(kind: str) -> list[str]:
    return [rest for word, rest in instructions() if word == kind]


HEAD, *PARTS = re.split(r"^%(?=\w)", APPTAINER, flags=re.MULTILINE)
HEADER = dict(line.split(": ") for line in code(HEAD))
PARTS = {name: code(body) for name, _, body in (part.partition("\n") for part in PARTS)}
COPIED = [line.split() for line in PARTS["files"]]


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]


def steps(commands: list[str]) -> list[str]:
    """Each command of a script for a shell."""
    return [step.strip() for line in commands for step in line.split("&&")]


def test_they_have_the_instructions_and_sections_that_there_are():
    assert {word for word, _ in instructions()} == INSTRUCTIONS
    assert instructions()[0][0] == "FROM"
    assert set(PARTS) == SECTIONS
    assert (HEADER["Bootstrap"], HEADER["From"]) == ("docker", *of("FROM"))


def test_their_python_is_one_of_ours_and_has_wheels_of_all_packages():
    (version,) = re.fullmatch(r"python:(\d+\.\d+)-slim", HEADER["From"]).groups()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert version in SpecifierSet(project["requires-python"])
    rl = [Requirement(line) for line in project["optional-dependencies"]["rl"]]
    assert all(one.marker is None or one.marker.evaluate({"python_version": version}) for one in rl)
    assert not all(one.marker is None or one.marker.evaluate({"python_version": "3.12"}) for one in rl)  # control


def test_they_install_the_packages_that_something_here_calls_and_no_others():
    for commands in (of("RUN"), PARTS["post"]):
        (line,) = (step for step in steps(commands) if step.startswith("apt-get install"))
        packages = [word for word in shlex.split(line)[2:] if not word.startswith("-")]
        assert packages == sorted(NEEDED)
        assert {"-y", "--no-install-recommends"} <= set(shlex.split(line))
    for package, caller in NEEDED.items():
        assert package in (ROOT / caller).read_text().lower()


def test_both_build_the_same_way():
    own = ("cd ", "git config ", "mkdir ")  # where there is no WORKDIR, and another user who cannot write
    assert [step for step in steps(PARTS["post"]) if not step.startswith(own)] == steps(of("RUN"))
    assert of("WORKDIR") == ["/syre"]
    assert "cd /syre" in PARTS["post"]
    assert "cd /syre" in PARTS["runscript"]


@pytest.mark.parametrize("name", ["post", "runscript", "RUN"])
def test_their_scripts_are_ones_of_sh(name):
    script = "\n".join(of("RUN") if name == "RUN" else PARTS[name])
    assert subprocess.run(["sh", "-n"], input=script, text=True).returncode == 0
    assert subprocess.run(["sh", "-n"], input=f"{script} && (", text=True, capture_output=True).returncode != 0


def test_what_they_run_are_targets_of_the_makefile():
    text = DOCKER + APPTAINER
    called = {"fig4", *re.findall(r"\bmake (\w+)", text), *re.findall(r"run .*syre\.sif +(?!make\b)(\w+)", text)}
    done = subprocess.run(["make", "-n", *called], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert subprocess.run(["make", "-n", "fig99"], cwd=ROOT, capture_output=True).returncode != 0  # control
    assert of("CMD") == ['["make", "fig4"]']


def test_they_name_no_index_and_no_address():
    for text in (DOCKER, APPTAINER, *IGNORED):
        assert re.search(r"://|index-url|trusted-host|\bproxy\b", text, re.IGNORECASE) is None


def test_docker_copies_what_git_tracks_and_nothing_that_git_ignores():
    assert of("COPY") == [". ."]
    plain = {line.removeprefix("**/").rstrip("/") for line in IGNORED if line and not line.startswith("#")}
    assert plain == {line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split()}
    assert not [name for name in tracked() if plain & {name, *Path(name).parts}]


def test_apptainer_copies_what_git_tracks():
    known = {name.split("/")[0] for name in tracked()} | {".git"}
    assert {source for source, _ in COPIED} <= known
    assert all(target == f"/syre/{source}" for source, target in COPIED)
    assert known - {source for source, _ in COPIED} <= {
        *(".ci", ".dockerignore", ".gitignore", "CITATION.cff", "Dockerfile", "MANIFEST.in", "apptainer.def"),
        *("environment.yml", "notebooks", "tests"),
    }


@pytest.mark.slow
def test_what_apptainer_copies_is_enough_to_train_and_to_be_installed(tmp_path):
    copied = {source for source, _ in COPIED}
    for name in tracked():
        if name.split("/")[0] in copied:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").mkdir()
    for path in Path(sys.prefix).iterdir():
        if path.name != ".complete":
            (tmp_path / ".venv" / path.name).symlink_to(path)
    (tmp_path / ".venv/.complete").write_text(f"{tmp_path}/.venv/bin/python\n")
    clean = {name: value for name, value in os.environ.items() if not re.fullmatch(r"M\w*FLAGS|MAKE\w*|ARGS", name)}
    call = [
        "sh",
        "-c",
        "\n".join(PARTS["runscript"]).replace("cd /syre", f"cd {tmp_path}"),
        "sh",
        "fig4",
        "SCALE=smoke",
    ]
    done = subprocess.run(call, env={**clean, "WANDB_MODE": "disabled"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs/fig4").is_dir()
    uv = [str(Path(sys.prefix, "bin/uv")), "build", "--wheel", "--offline", "--no-build-isolation"]
    built = subprocess.run(
        [*uv, "--python", sys.executable, "-o", "wheel"], cwd=tmp_path, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
