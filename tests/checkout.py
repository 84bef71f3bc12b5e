"""A copy of this repository for tests that run its commands, or add to it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What `make` was called with, where it is what calls these tests, is not meant for the commands.
OUTER = r"M\w*FLAGS|MAKE\w*|ARGS|DATA|FIG|LAUNCHER|PYTHON|SCALE|SLURM|BROWSER"
ENVIRONMENT = {name: value for name, value in os.environ.items() if not re.fullmatch(OUTER, name)}


def tracked() -> list[str]:
    """The files of a clone."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]


def checkout(root: Path) -> Path:
    """A checkout in a folder, whose .venv is complete: it has links to all that is in that of these tests."""
    for name in tracked():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, root / name)
    (root / ".venv").mkdir()
    for path in Path(sys.prefix).iterdir():
        if path.name != ".complete":
            (root / ".venv" / path.name).symlink_to(path)
    (root / ".venv/.complete").write_text(f"{root}/.venv/bin/python\n")
    return root


def call(command: str, root: Path) -> subprocess.CompletedProcess:
    """A command line, run in a folder."""
    return subprocess.run(["bash", "-c", command], cwd=root, env=ENVIRONMENT, capture_output=True, text=True)
