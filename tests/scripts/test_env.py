"""`make env` builds .venv or says in one line why it cannot; a folder that is not its own it leaves alone.

Python, pip and uv are stand-ins here, but for one test: they say what they were asked for.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAMP = ".venv/.complete"
# It answers for `python`, and as `python -m venv` leaves itself in the environment as python and uv.
STAND_IN = """#!/bin/bash
echo "${0##*/} $*" >>"$CALLS"
case "${0##*/} $1 $2" in
  *" -c import sys"*) echo "${VERSION:-3.11} ${BASE:-$0}" ;;
  *" -c import ensurepip, venv") exit "${WITHOUT_VENV:-0}" ;;
  *" -m venv")
    [[ ! -L $3 ]] || exit 1
    mkdir -p "$3/bin" "$3/lib/python3.11/site-packages"; touch "$3/pyvenv.cfg"
    cp "$0" "$3/bin/python"; cp "$0" "$3/bin/uv" ;;
  *" -c import torch,"*) echo "compiles ${PYTHONDONTWRITEBYTECODE:-and writes}" >>"$CALLS"; exit 1 ;;
  *" -m pip") [[ -z $OFFLINE ]] || { echo retrying; echo "no route to host"; echo; exit 1; } ;;
  uv*)
    [[ -z $KILLED || "$*" != *" -e ." ]] || kill -9 $PPID
    [[ -z $LATER_OFFLINE || "$*" != *frameworks.lock ]] || { echo "no route to host"; exit 1; } ;;
esac
"""


class Checkout:
    """A folder with what `make env` needs."""

    def __init__(self, root: Path) -> None:
        self.root, self.calls, self.python = root / "checkout", root / "calls", root / "python3.11"
        (self.root / "scripts").mkdir(parents=True)
        for name in (".gitignore", "Makefile", "pyproject.toml", "scripts/env.sh"):
            shutil.copy(ROOT / name, self.root / name)
        (self.root / "requirements.lock").write_text("a==1\nuv==0.1 \\\n    --hash=sha256:0\nz==1\n")
        (self.root / "requirements-frameworks.lock").write_text("b==1\n")
        (self.root / "requirements-site.lock").write_text("c==1\n")
        self.python.write_text(STAND_IN)
        self.python.chmod(0o755)

    def make(self, *words: str, goal: str = "env", **environment: str) -> subprocess.CompletedProcess:
        self.calls.write_text("")
        words = (goal, f"PYTHON={self.python}", *words)
        own = {
            name: value for name, value in os.environ.items() if not name.startswith(("UV_", "MAKE", "PYTHON", "ARGS"))
        }
        return subprocess.run(
            ["make", *words],
            cwd=self.root,
            capture_output=True,
            text=True,
            env={**own, "CALLS": str(self.calls), **environment},
        )

    def builds(self, **environment: str) -> None:
        """It is built now, and not again."""
        done = self.make(**environment)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "building .venv with Python 3.11 from requirements.lock\n"
        assert (self.root / STAMP).is_file()
        assert self.make().stdout == "make: Nothing to be done for 'env'.\n"

    def refuses(self, *words: str, says: str, **environment: str) -> None:
        """It is not built, for a reason in one line (and make's own)."""
        done = self.make(*words, **environment)
        first, *rest = done.stderr.splitlines()
        assert done.returncode == 2
        assert first.startswith("error: ")
        assert says in first
        assert [line[:10] for line in rest] == ["make: *** "]
        assert not (self.root / STAMP).exists()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_it_is_built_once_by_the_uv_of_the_lock(checkout):
    checkout.builds()
    checkout.make("-B")
    steps = [line.replace(str(checkout.python), "") for line in checkout.calls.read_text().splitlines()]
    assert steps[-6:-2] == [
        f"python3.11 -m venv {checkout.root}/.venv",
        "python -m pip install --disable-pip-version-check --require-hashes -r .venv/uv.lock",
        "uv pip install --python .venv/bin/python --require-hashes -r requirements.lock",
        "uv pip install --python .venv/bin/python --no-deps -e .",
    ]
    assert (checkout.root / ".venv/uv.lock").read_text() == "uv==0.1 \\\n    --hash=sha256:0\n"


def test_what_every_run_imports_is_compiled_once_even_where_a_variable_forbids_it_to_each_process(checkout):
    checkout.builds(PYTHONDONTWRITEBYTECODE="1")
    checkout.make("-B", PYTHONDONTWRITEBYTECODE="1")
    *_, before, imports, compiles = checkout.calls.read_text().splitlines()
    assert before.endswith("--no-deps -e .")
    assert imports.startswith("python -c import torch, torchvision")
    assert compiles == "compiles and writes"  # and where one of them fails, the environment is there all the same


def test_it_is_built_again_when_the_lock_changes(checkout):
    checkout.builds()
    stamp = (checkout.root / STAMP).stat().st_mtime
    os.utime(checkout.root / "requirements.lock", (stamp + 1, stamp + 1))
    assert "building" in checkout.make().stdout


# ---- .venv-frameworks, over .venv ------------------------------------------------------------------------------------

LAYERED = ".venv-frameworks/.complete"
BUILDS = "building .venv-frameworks with Python 3.11 from requirements-frameworks.lock\n"


def test_the_frameworks_are_installed_over_it_once(checkout):
    done = checkout.make(goal="test-frameworks")
    assert (done.returncode, done.stderr) == (0, "")
    assert BUILDS in done.stdout
    steps = re.sub(r"-n \d+", "-n N", checkout.calls.read_text().replace(f"{checkout.root}/", "")).splitlines()
    install = "uv pip install --python .venv-frameworks/bin/python --no-deps --require-hashes"
    assert [line for line in steps if "frameworks" in line] == [
        "python -m venv .venv-frameworks --without-pip",
        f"{install} -r requirements-frameworks.lock",
        "python -m pytest -n N --maxprocesses 8 --dist loadgroup tests/frameworks tests/core/test_any_model.py",
    ]
    assert (checkout.root / ".venv-frameworks/lib/python3.11/site-packages/venv.pth").is_file()
    assert "building" not in checkout.make(goal="test-frameworks").stdout
    assert "building" not in checkout.make().stdout


def test_they_are_installed_again_when_their_lock_or_what_lies_below_changes(checkout):
    checkout.make(goal="test-frameworks")
    for name in ("requirements-frameworks.lock", STAMP):
        stamp = (checkout.root / LAYERED).stat().st_mtime
        os.utime(checkout.root / name, (stamp + 1, stamp + 1))
        assert checkout.make(goal="test-frameworks").stdout.count("building") == 1
        os.utime(checkout.root / name, (stamp - 1, stamp - 1))
    (checkout.root / ".venv-frameworks/bin/python").unlink()
    assert BUILDS in checkout.make(goal="test-frameworks").stdout
    checkout.root = checkout.root.rename(checkout.root.with_name("moved"))
    assert checkout.make(goal="test-frameworks").stdout.count("building") == 2


def test_without_a_network_for_them_it_says_so_in_one_line_and_nothing_is_tested(checkout):
    done = checkout.make(goal="test-frameworks", LATER_OFFLINE="1")
    first, second = done.stderr.splitlines()
    assert (done.returncode, second[:10]) == (2, "make: *** ")
    assert "(is there a network?), see .venv-frameworks/build.log; its last line: no route to host" in first
    assert (checkout.root / STAMP).exists()
    assert not (checkout.root / LAYERED).exists()
    assert "-m pytest" not in checkout.calls.read_text()
    assert BUILDS in checkout.make(goal="test-frameworks").stdout


def test_a_folder_in_their_place_that_is_not_ours_stays_as_it_is(checkout):
    (checkout.root / ".venv-frameworks").mkdir()
    (checkout.root / ".venv-frameworks/thesis.tex").write_text("mine")
    done = checkout.make(goal="test-frameworks")
    assert ".venv-frameworks is neither empty nor an environment of this project" in done.stderr
    assert (checkout.root / ".venv-frameworks/thesis.tex").read_text() == "mine"


# ---- .venv-site, which stands alone ----------------------------------------------------------------------------------

SITE = ".venv-site/.complete"


def test_the_site_has_an_environment_that_needs_no_other(checkout):
    done = checkout.make(goal="site")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("building .venv-site with Python 3.11 from requirements-site.lock\n")
    steps = checkout.calls.read_text().replace(f"{checkout.root}/", "").replace(str(checkout.python), "").splitlines()
    assert steps[-4:] == [
        "python3.11 -m venv .venv-site",
        "python -m pip install --disable-pip-version-check --require-hashes -r .venv-site/uv.lock",
        "uv pip install --python .venv-site/bin/python --require-hashes -r requirements-site.lock",
        "python -m mkdocs build --strict --quiet",
    ]
    assert not (checkout.root / ".venv").exists()
    assert "building" not in checkout.make(goal="site").stdout


def test_it_is_built_again_when_its_lock_changes_or_it_is_gone_and_not_when_that_of_the_rest_does(checkout):
    checkout.make(goal="site")
    stamp = (checkout.root / SITE).stat().st_mtime
    os.utime(checkout.root / "requirements.lock", (stamp + 1, stamp + 1))
    assert "building" not in checkout.make(goal="site").stdout
    os.utime(checkout.root / "requirements-site.lock", (stamp + 1, stamp + 1))
    assert "building .venv-site" in checkout.make(goal="site").stdout
    os.utime(checkout.root / "requirements-site.lock", (stamp - 1, stamp - 1))
    (checkout.root / ".venv-site/bin/python").unlink()
    assert "building .venv-site" in checkout.make(goal="site").stdout


def test_without_a_network_for_it_it_says_so_in_one_line_and_nothing_is_built(checkout):
    done = checkout.make(goal="site", OFFLINE="1")
    first, second = done.stderr.splitlines()
    assert (done.returncode, second[:10]) == (2, "make: *** ")
    assert "(is there a network?), see .venv-site/build.log; its last line: no route to host" in first
    assert not (checkout.root / SITE).exists()
    assert "mkdocs" not in checkout.calls.read_text()


# ---- Python ----------------------------------------------------------------------------------------------------------


def test_a_python_that_is_not_found_too_old_or_none_at_all_is_one_line(checkout):
    checkout.refuses("PYTHON=python9", says="PYTHON=python9 is not found: make PYTHON=")
    checkout.refuses("PYTHON=/bin/false", says="PYTHON=/bin/false is no Python that runs")
    for version in ("2.7", "3.10", "3.14", "3.110"):
        checkout.refuses(VERSION=version, says=f"3.11, 3.12 or 3.13 is needed, not {version}")
    checkout.refuses(WITHOUT_VENV="1", says="apt-get install python3.11-venv")
    assert not (checkout.root / ".venv").exists()


def test_one_whose_python_is_gone_is_built_again(checkout):
    checkout.builds()
    (checkout.root / ".venv/bin/python").unlink()
    checkout.builds()
    (checkout.root / ".venv/bin/python").write_text("#!/bin/false\n")  # it is there, but has lost its packages
    checkout.builds()


def test_one_in_a_checkout_that_was_moved_is_built_again(checkout):
    checkout.builds()
    checkout.root = checkout.root.rename(checkout.root.with_name("moved"))
    checkout.builds()


def test_the_python_of_the_environment_itself_may_build_it_again(checkout):
    """With .venv activated, `python3` is in it, and would be removed before it is used."""
    checkout.builds()
    os.utime(checkout.root / "requirements.lock")
    own = checkout.root / ".venv/bin/python"
    assert checkout.make(f"PYTHON={own}", "-B", BASE=str(checkout.python)).returncode == 0
    assert f"\npython3.11 -m venv {checkout.root}/.venv\n" in checkout.calls.read_text()


# ---- what is interrupted, or has no network --------------------------------------------------------------------------


def test_one_that_was_interrupted_is_built_again(checkout):
    assert checkout.make(KILLED="1").returncode == 2
    assert (checkout.root / ".venv/bin/uv").exists()
    assert not (checkout.root / STAMP).exists()
    checkout.builds()
    (checkout.root / STAMP).unlink()
    checkout.builds()


def test_without_a_network_it_says_so_in_one_line_and_is_not_complete(checkout):
    checkout.refuses(OFFLINE="1", says="could not be fetched or installed (is there a network?)")
    checkout.refuses(OFFLINE="1", says="see .venv/build.log; its last line: no route to host")
    assert (checkout.root / ".venv/build.log").read_text() == "retrying\nno route to host\n\n"
    checkout.builds()


@pytest.mark.slow
def test_a_true_python_and_a_true_pip_without_a_network(checkout, tmp_path):
    """And with no home to write to, and .venv a link."""
    (tmp_path / "scratch").mkdir()
    (checkout.root / ".venv").symlink_to(tmp_path / "scratch")
    python = f"PYTHON={sys.executable}"
    offline = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0", "HOME": str(tmp_path / "none/home")}
    checkout.refuses(python, says="(is there a network?)", **offline)
    version = [checkout.root / ".venv/bin/python", "-c", "import sys; print(sys.version)"]
    assert subprocess.check_output(version, text=True) == sys.version + "\n"


@pytest.mark.parametrize("home", ["none/home", "writable"])
def test_without_a_home_to_write_to_there_are_no_caches(checkout, tmp_path, home):
    (tmp_path / "none").touch()
    (tmp_path / "writable").mkdir()
    checkout.python.write_text(STAND_IN + '[[ "$*" == *lock* ]] && echo "cache: ${UV_NO_CACHE-yes}" >>"$CALLS"; true\n')
    checkout.make(HOME=str(tmp_path / home))
    assert checkout.calls.read_text().count(f"cache: {'yes' if home == 'writable' else '1'}\n") == 2


# ---- .venv is a link, or something else ------------------------------------------------------------------------------


def test_a_link_to_an_empty_or_missing_folder_fills_the_folder(checkout, tmp_path):
    for name in ("empty", "missing"):
        target = tmp_path / name
        (checkout.root / ".venv").symlink_to(target)
        if name == "empty":
            target.mkdir()
        checkout.builds()
        assert (target / "bin/python").exists()
        (target / "bin/python").unlink()  # it is ours now, and may be built again
        checkout.builds()
        assert (checkout.root / ".venv").is_symlink()
        (checkout.root / ".venv").unlink()


@pytest.mark.parametrize("linked", [True, False])
def test_a_folder_that_is_not_ours_stays_as_it_is(checkout, tmp_path, linked):
    folder = tmp_path / "mine" if linked else checkout.root / ".venv"
    folder.mkdir()
    (folder / "thesis.tex").write_text("mine")
    if linked:
        (folder / "pyvenv.cfg").touch()  # an environment, but of somebody else
        (checkout.root / ".venv").symlink_to(folder)
    before = sorted(folder.iterdir())
    checkout.refuses(says=f"{folder} is neither empty nor an environment of this project")
    assert sorted(folder.iterdir()) == before
    assert (folder / "thesis.tex").read_text() == "mine"


def test_an_environment_without_a_mark_that_lies_here_was_interrupted(checkout):
    (checkout.root / ".venv").mkdir()
    (checkout.root / ".venv/pyvenv.cfg").touch()
    checkout.builds()


def test_a_file_or_a_link_to_nowhere_is_one_line(checkout, tmp_path):
    (checkout.root / ".venv").touch()
    checkout.refuses(says=".venv is in the way: it is no folder")
    (checkout.root / ".venv").unlink()
    (checkout.root / ".venv").symlink_to(tmp_path / "not/mounted")
    checkout.refuses(says=f".venv points to {tmp_path}/not/mounted, which cannot be made")


def test_a_link_is_nothing_that_git_sees(checkout, tmp_path):
    (checkout.root / ".venv").symlink_to(tmp_path)
    subprocess.run(["git", "init", "-q"], cwd=checkout.root, check=True)
    listed = subprocess.run(
        ["git", "status", "--porcelain"], cwd=checkout.root, capture_output=True, text=True, check=True
    )
    assert "Makefile" in listed.stdout
    assert ".venv" not in listed.stdout


def test_clean_removes_a_link_and_not_what_it_points_to(checkout, tmp_path):
    (tmp_path / "scratch").mkdir()
    (checkout.root / ".venv").symlink_to(tmp_path / "scratch")
    checkout.builds()
    (checkout.root / ".venv-frameworks").mkdir()
    subprocess.run(["make", "clean"], cwd=checkout.root, check=True, capture_output=True)
    assert not (checkout.root / ".venv").is_symlink()
    assert not (checkout.root / ".venv-frameworks").exists()
    assert (tmp_path / "scratch/bin/python").exists()
