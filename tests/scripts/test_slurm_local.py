"""scripts/slurm_local.sh ends with the status of its command, or says in one line why it cannot; it leaves nothing."""

import os
import shutil
import subprocess
import tempfile
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
        done = subprocess.run(
            ["bash", "-s", "run", "true"],
            stdin=script,
            capture_output=True,
            text=True,
            user=65534,
            cwd="/",
            env={"PATH": os.environ["PATH"]},
        )
    assert (done.returncode, done.stderr) == (77, "skipped: needs root\n")


# ---- install ---------------------------------------------------------------------------------------------------------

TOOLS = (
    "basename",
    "bash",
    "cat",
    "comm",
    "echo",
    "find",
    "flock",
    "ln",
    "mktemp",
    "mv",
    "nproc",
    "realpath",
    "rm",
    "sed",
    "sort",
    "uname",
    "xargs",
)
PROGRAMS = "munged munge slurmctld slurmd sbatch srun scancel squeue sinfo"
STAND_INS = {
    "dpkg-query": 'cat "$DPKG_ROOT/packages"',
    # Debian's packages enable their services, for systemd and for init, and would start them.
    "apt-get": f"""[[ $* == *install* ]] || exit 0
echo "$RUNLEVEL $SYSTEMD_OFFLINE" >"$DPKG_ROOT/asked"
printf 'munge\nslurm-wlm\n' >>"$DPKG_ROOT/packages"
for name in munge slurmd; do
  ln -s /lib/systemd/system/$name.service "$DPKG_ROOT/etc/systemd/system/multi-user.target.wants"
  ln -s ../init.d/$name "$DPKG_ROOT/etc/rc3.d/S01$name"
  [[ -z $BROKEN ]] || {{ echo planted; echo failure; exit 100; }}
done >&2
for name in {PROGRAMS}; do ln -s /bin/true "${{0%/*}}/$name"; done""",
    "update-rc.d": '[[ $2 == disable ]] && mv "$DPKG_ROOT"/etc/rc3.d/{S,K}01"$1"',
}


@pytest.fixture
def machine(tmp_path):
    """Calls the script on a machine in `tmp_path`, whose programs are stand-ins, and which has no SLURM."""
    programs, wants = tmp_path / "bin", tmp_path / "etc/systemd/system/multi-user.target.wants"
    for folder in (programs, wants, tmp_path / "etc/rc3.d"):
        folder.mkdir(parents=True)
    for name in TOOLS:
        (programs / name).symlink_to(shutil.which(name))
    for name, text in STAND_INS.items():
        (programs / name).write_text(f"#!{shutil.which('bash')}\n{text}\n")
        (programs / name).chmod(0o755)
    (tmp_path / "packages").write_text("bash\n")
    (wants / "ssh.service").symlink_to("/lib/systemd/system/ssh.service")
    (tmp_path / "etc/rc3.d/S01ssh").symlink_to("../init.d/ssh")
    return lambda *words, **settings: call(*words, env={"PATH": str(programs), "DPKG_ROOT": str(tmp_path), **settings})


def starts(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "etc").rglob("*") if path.is_symlink() and path.name[0] != "K")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can install")
@pytest.mark.parametrize("broken", ["", "1"])
def test_it_says_what_it_installs_and_none_of_it_starts_at_boot(tmp_path, machine, broken):
    before = starts(tmp_path)
    assert before == ["S01ssh", "ssh.service"]
    done = machine("install", BROKEN=broken)
    if broken:
        expected = (77, "", "skipped: slurm-wlm and munge could not be installed: failure\n")
    else:
        expected = (0, "installed for SLURM: munge slurm-wlm\n", "")
    assert (done.returncode, done.stdout, done.stderr) == expected
    assert (tmp_path / "asked").read_text() == "1 1\n"  # not to start anything
    assert starts(tmp_path) == before
    assert {path.name for path in (tmp_path / "etc/rc3.d").iterdir()} >= {"K01munge", "S01ssh"}
    if not broken:
        again = machine("install")
        assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can bring it up")
def test_nothing_is_installed_that_was_not_asked_for(tmp_path, machine):
    done = machine("run", "true")
    assert (done.returncode, done.stderr.count("\n")) == (77, 1)
    assert "scripts/slurm_local.sh install" in done.stderr
    assert not (tmp_path / "asked").exists()


# ---- a SLURM ---------------------------------------------------------------------------------------------------------


@pytest.mark.slurm
@pytest.mark.xdist_group("slurm")
@pytest.mark.parametrize("name", ["short", "long" * 20])  # too long for the sockets of SLURM
def test_its_status_is_that_of_the_command_and_nothing_is_left(name):
    command = "sinfo --noheader --format=%T; srun hostname >/dev/null; dirname $SLURM_CONF; exit 3"
    with tempfile.TemporaryDirectory(dir="/tmp") as parent:  # tmp_path's own is long
        folder = Path(parent, name)
        folder.mkdir()
        done = call("run", "bash", "-c", command, env={**os.environ, "TMPDIR": str(folder)})
        if done.returncode == 77:
            pytest.skip(done.stderr.strip().splitlines()[-1])
        assert (done.returncode, done.stdout.splitlines()[:1]) == (3, ["idle"]), done.stderr
        used = Path(done.stdout.splitlines()[1])
        assert used.parent == (folder if name == "short" else Path("/tmp"))
        assert not used.exists()
        assert list(folder.iterdir()) == []
