"""scripts/browser.sh installs a browser where it can, says which packages came, or says in one line why it cannot."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/browser.sh"
TOOLS = ("bash", "chmod", "comm", "echo", "flock", "sed", "sort", "timeout", "xargs")
APT = """[[ $* == *install* ]] || exit 0
[[ -z $BROKEN ]] || { echo some; echo failure; exit 100; } >&2
printf 'chromium\\nchromium-common\\n' >>"$MACHINE/packages"
printf '#!%s\\n%s\\n' "$BASH" "${STARTS-exit 0}" >"$MACHINE/bin/chromium"
chmod +x "$MACHINE/bin/chromium" """


@pytest.fixture
def machine(tmp_path):
    """Calls the script on a machine in `tmp_path` that has no browser, and whose programs are stand-ins."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in TOOLS:
        (programs / name).symlink_to(shutil.which(name))
    for name, text in {"dpkg-query": 'echo "$(<"$MACHINE/packages")"', "apt-get": APT}.items():
        (programs / name).write_text(f"#!{shutil.which('bash')}\n{text}\n")
        (programs / name).chmod(0o755)
    (tmp_path / "packages").write_text("bash\n")

    def call(*words, **settings):
        environment = {"PATH": str(programs), "MACHINE": str(tmp_path), **settings}
        done = subprocess.run(["bash", SCRIPT, *words], capture_output=True, text=True, env=environment)
        return done.returncode, done.stdout, done.stderr

    return call


@pytest.mark.parametrize("words", [(), ("begin",), ("install", "more")], ids=str)
def test_wrong_usage_shows_the_right_one(machine, words):
    code, _, said = machine(*words)
    assert code == 2
    assert "scripts/browser.sh install" in said


def test_without_a_browser_it_says_how_to_get_one(machine):
    code, out, said = machine("path")
    assert (code, out, said.count("\n")) == (77, "", 1)
    assert said.startswith("skipped: ")
    assert "scripts/browser.sh install" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can install")
def test_it_says_what_it_installs_and_does_it_once(tmp_path, machine):
    assert machine("install") == (0, "installed for the browser: chromium chromium-common\n", "")
    assert machine("install") == (0, "", "")
    assert machine("path") == (0, f"{tmp_path / 'bin/chromium'}\n", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can install")
def test_what_cannot_be_installed_is_skipped_in_one_line(machine):
    assert machine("install", BROKEN="1") == (77, "", "skipped: chromium could not be installed: failure\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can install")
def test_a_browser_that_does_not_start_is_none(machine):
    """Ubuntu's package has a stand-in for a snap."""
    code, _, said = machine("install", STARTS="exit 1")
    assert (code, said) == (77, "skipped: chromium is installed, but it does not start\n")
    assert machine("path")[0] == 77


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_without_root_it_is_skipped_in_one_line():
    with SCRIPT.open() as script:  # the checkout may be closed to others
        done = subprocess.run(
            [shutil.which("bash"), "-s", "install"],
            stdin=script,
            capture_output=True,
            text=True,
            user=65534,
            cwd="/",
            env={"PATH": "/nowhere"},
        )
    assert (done.returncode, done.stderr) == (77, "skipped: no chromium here, and installing it needs root\n")
