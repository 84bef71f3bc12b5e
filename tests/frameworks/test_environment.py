"""The environment of these tests adds packages to that of the others, and replaces none."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def locked(name):
    return set(re.findall(r"^([a-z][\w.-]*)==", (ROOT / name).read_text(), re.MULTILINE))


def test_nothing_is_locked_twice_and_no_index_is_named():
    assert {"torch", "numpy", "stable-baselines3"} <= locked("requirements.lock")
    assert {"transformers", "lightning", "accelerate", "timm", "peft"} <= locked("requirements-frameworks.lock")
    assert locked("requirements.lock") & locked("requirements-frameworks.lock") == set()
    text = (ROOT / "requirements-frameworks.lock").read_text()
    assert "://" not in text
    assert text.count("--hash=sha256:") > len(locked("requirements-frameworks.lock"))


@pytest.mark.skipif(not Path(sys.prefix, ".syre").exists(), reason="in an environment that `make` has not built")
def test_every_package_finds_what_it_needs_in_the_two_environments():
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "No broken requirements found.\n", done.stdout + done.stderr
