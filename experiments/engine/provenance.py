"""Where a run's numbers come from: code, versions, machine."""

import platform
import subprocess
import sys
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy
import torch

from syre.data.text import what_was_read

PHYSICS = ("gymnasium", "mujoco", "pybullet", "stable_baselines3")  # where a run has them, they decide its numbers
CODE = ("syre", "experiments", "configs", "requirements.lock", "pyproject.toml")


@cache
def _git() -> tuple[str, bool]:
    """The commit of this checkout, and whether code or configuration differ from it; ("unknown", True) outside git."""
    root = Path(__file__).parents[2]
    ask = partial(subprocess.check_output, cwd=root, stderr=subprocess.DEVNULL, text=True)
    try:
        return ask(["git", "rev-parse", "HEAD"]).strip(), bool(ask(["git", "status", "--porcelain", "--", *CODE]))
    except (OSError, subprocess.CalledProcessError):
        return "unknown", True


def provenance(device: torch.device) -> dict[str, Any]:
    """The columns of `results.PROVENANCE`, but for the seconds."""
    sha, dirty = _git()
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__}
    versions |= {name.replace("_", "-"): version(name) for name in PHYSICS if name in sys.modules}
    versions |= what_was_read()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    where = {"device": name, "threads": torch.get_num_threads()}
    return {"git_sha": sha, "dirty": dirty, **where, "versions": versions}
