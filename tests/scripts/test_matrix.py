"""`make matrix`: its rows are the versions that pyproject.toml names; what does not run is said, and counts if newest.

Environments are stand-ins here: the tests of the library run in them, which `make matrix` itself does.
"""

import re
import sys
import tomllib
from pathlib import Path

import pytest

from scripts import matrix

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([\w-]+)==([\w.]+)", path.read_text(), re.MULTILINE))


LOCKS = {row: pins(ROOT / f"scripts/matrix/{row}.lock") for row in matrix.rows()}


def test_the_rows_are_the_locks_and_the_oldest_torch_comes_first():
    assert sorted(LOCKS) == sorted(path.stem for path in matrix.LOCKS.iterdir())
    versions = [[int(part) for part in lock["torch"].split(".")] for lock in LOCKS.values()]
    assert versions == sorted(versions)
    for row, lock in LOCKS.items():
        assert matrix.NAME.fullmatch(row)[2] == lock["torch"].rpartition(".")[0]
        assert f"--python-version {matrix.python_of(row)} " in (matrix.LOCKS / f"{row}.lock").read_text()
    assert matrix.rows(["torch2.4"]) == matrix.rows()[:1]


def test_the_oldest_row_has_what_the_package_asks_for_and_the_newest_what_the_figures_are_made_with():
    oldest, *_, newest = LOCKS.values()
    lowest = dict(need.split(">=") for need in PROJECT["dependencies"])
    assert oldest["torch"] == f"{lowest['torch']}.0"
    assert oldest["numpy"].startswith(f"{lowest['numpy']}.")
    assert newest["torch"] == pins(ROOT / "requirements.lock")["torch"]
    (repro,) = (need for need in PROJECT["optional-dependencies"]["repro"] if need.startswith("torch>"))
    assert any(f"torch>={lock['torch'].rpartition('.')[0]}" == repro for lock in LOCKS.values())
    named = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)}
    assert {matrix.python_of(row) for row in LOCKS} == named


def test_every_package_is_pinned_with_hashes_and_no_index_is_named():
    for row in LOCKS:
        text = (matrix.LOCKS / f"{row}.lock").read_text()
        packages = re.split(r"^(?=\w)", text, flags=re.MULTILINE)[1:]
        assert all("==" in package and "--hash=sha256:" in package for package in packages)
        assert "index-url" not in re.sub(r"^#.*$", "", text, flags=re.MULTILINE)


def test_a_python_is_found_by_its_version(monkeypatch, tmp_path):
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    monkeypatch.setenv("PYTHON", sys.executable)
    assert matrix.find_python(version) == sys.executable
    assert matrix.find_python("3.999") is None
    (tmp_path / "versions/3.999.1/bin").mkdir(parents=True)
    own = tmp_path / "versions/3.999.1/bin/python"
    own.write_text("#!/bin/sh\necho 3.999\n")
    own.chmod(0o755)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert matrix.find_python("3.999") == str(own)


@pytest.fixture
def stand_ins(monkeypatch, tmp_path):
    """Pythons that are all here, and rows that pass: what is to be otherwise, a test takes out."""
    pythons, outcomes = {"3.11", "3.12", "3.13"}, {}

    def run(row: str, python: str, wheel: Path, folder: Path) -> str:
        if row in outcomes:
            raise matrix.Failed(outcomes[row])
        return "7 passed"

    monkeypatch.setattr(matrix, "find_python", lambda version: f"python{version}" if version in pythons else None)
    monkeypatch.setattr(matrix, "build", lambda folder: folder / "a.whl")
    monkeypatch.setattr(matrix, "run", run)
    return pythons, outcomes, ["--folder", str(tmp_path / "matrix")]


def test_every_row_runs_and_says_how_it_ended(stand_ins, capsys):
    _, outcomes, words = stand_ins
    assert matrix.main(words) == 0
    said = capsys.readouterr().out
    assert [line.split(";")[0] for line in said.splitlines()] == [f"{row}: 7 passed" for row in LOCKS]
    outcomes[next(iter(LOCKS))] = "1 failed"
    assert matrix.main(words) == 1
    said = capsys.readouterr()
    assert said.err == f"1 failed\n{next(iter(LOCKS))}: failed, see matrix/{next(iter(LOCKS))}.log\n"
    assert len(said.out.splitlines()) == len(LOCKS) - 1


def test_a_row_without_its_python_is_left_out_but_the_newest_must_run(stand_ins, capsys):
    pythons, _, words = stand_ins
    pythons.remove("3.11")
    assert matrix.main(words) == 0
    (oldest, *_, newest) = LOCKS
    assert f"{oldest}: left out, no Python 3.11 is found: PYTHON=/path/to/python3.11\n" in capsys.readouterr().out
    pythons.remove("3.13")
    assert matrix.main(words) == 1
    assert f"error: the newest, {newest}, did not run\n" in capsys.readouterr().err
    assert matrix.main([*words, "torch2.7"]) == 0  # the newest of those asked for


def test_a_word_that_no_row_has_is_one_line(stand_ins, capsys):
    with pytest.raises(SystemExit) as stopped:
        matrix.main([*stand_ins[2], "torch1.0"])
    assert stopped.value.code == 2
    assert f"error: no row has torch1.0 in its name: {', '.join(LOCKS)}\n" in capsys.readouterr().err


def test_a_step_that_fails_raises_with_the_end_of_what_it_said_and_the_log_has_all(tmp_path):
    log = tmp_path / "row.log"
    assert matrix.call(log, sys.executable, "-c", "print('first')") == "first\n"
    with pytest.raises(matrix.Failed, match=r"^29\n30\n"):
        matrix.call(log, sys.executable, "-c", "print(*range(59), sep='\\n'); raise SystemExit(3)")
    assert log.read_text().startswith("first\n0\n1\n")


@pytest.mark.slow
@pytest.mark.xdist_group("package")
def test_the_wheel_and_the_tests_of_the_source_distribution_are_built_anew(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source/old").touch()
    assert matrix.build(tmp_path).name.startswith("syre_torch-")
    assert (tmp_path / "source/tests/core/test_attach.py").exists()
    assert not (tmp_path / "source/old").exists()
    assert not (tmp_path / "source/syre").exists()  # that of the tests is the wheel's
