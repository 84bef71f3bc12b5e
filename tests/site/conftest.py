"""The built site, in an environment of its own: `make test` builds that, as `make site` does; else it is skipped."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-site/bin/python"


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The folder of the site, which mkdocs has built without a warning."""
    if not (ROOT / ".venv-site/.complete").is_file():
        pytest.skip("no .venv-site: `make site` builds it")
    folder = tmp_path_factory.mktemp("built") / "site"
    command = [PYTHON, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder
