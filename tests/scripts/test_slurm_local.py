"""scripts/slurm_local.sh ends with the status of its command, or says in one line why it cannot; it leaves nothing."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/slurm_local.sh"


def call(*words: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(["bash", SCRIPT, *words], capture_output=True, text=True, **options)


@pytest.mark.parametrize("words", [(), ("begin",), ("run",), ("start",), ("stop", "a", "b")], ids=str)
def test_wrong_usage_shows_the_right_one(words):
    done = call(*words)
    assert done.returncode == 2
    assert "scripts/slurm_local.sh run COMMAND" in done.stderr


def test_a_folder_that_it_has_not_made_is_not_removed(tmp_path):
    done = call("stop", str(tmp_path))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert tmp_path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_without_root_it_is_skipped_in_one_line():
    with SCRIPT.open() as script:  # the checkout may be closed to others
        done = subprocess.run(["bash", "-s", "run", "true"], stdin=script, capture_output=True, text=True, user=65534,
                              cwd="/", env={"PATH": os.environ["PATH"]})  # fmt: skip
    assert (done.returncode, done.stderr) == (77, "skipped: needs root\n")


@pytest.mark.slurm
def test_its_status_is_that_of_the_command_and_nothing_is_left(tmp_path):
    command = "sinfo --noheader --format=%T; srun hostname >/dev/null; exit 3"
    done = call("run", "bash", "-c", command, env={**os.environ, "TMPDIR": str(tmp_path)})
    if done.returncode == 77:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert (done.returncode, done.stdout) == (3, "idle\n")
    assert list(tmp_path.iterdir()) == []
