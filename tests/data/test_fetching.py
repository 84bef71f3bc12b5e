"""scripts/data.py against a server that truncates, damages, refuses and forgets: all of a file or nothing."""

import errno
import os
import socket
import urllib.error
from pathlib import Path

import pytest

from syre.data import Cifar10, Mnist, files

TAR = "cifar-10-python.tar.gz"


def names(root: Path) -> set[str]:
    return {path.name for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def run(script, tmp_path, capsys):
    """Run the script on a data set; its exit code, and the lines it wrote to stderr."""

    def call(name: str) -> tuple[int, list[str]]:
        code = script.main([name, "--root", str(tmp_path)])
        return code, capsys.readouterr().err.splitlines()

    return call


def test_what_is_fetched_loads_and_a_second_call_asks_nothing(run, script, server, mnist, cifar10, tmp_path, capsys):
    assert run("mnist,cifar10") == (0, [])
    assert Mnist().load(tmp_path).train_inputs.shape == (7, 1, 28, 28)
    assert Cifar10().load(tmp_path).train_inputs.shape == (7, 3, 32, 32)
    assert len(server.requests) == 5
    assert not any(name.endswith(".part") or name.startswith(".") for name in names(tmp_path))
    assert script.main(["mnist,cifar10", "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("already in") == 2
    assert len(server.requests) == 5


def test_a_truncated_download_goes_on_where_it_broke_off(run, server, cifar10, tmp_path):
    server.script = ["truncate", "truncate"]
    assert run("cifar10") == (0, [])
    assert server.requests == [(TAR, None), (TAR, "bytes=40-"), (TAR, "bytes=80-")]
    Cifar10().load(tmp_path)


def test_so_does_one_that_an_earlier_call_left(run, server, cifar10, tmp_path):
    server.script = ["truncate"] * 4
    code, errors = run("cifar10")
    assert code == 1
    assert len(errors) == 1
    assert "closed at byte 160" in errors[0]
    assert names(tmp_path) == {TAR + ".part"}
    assert run("cifar10") == (0, [])
    assert server.requests[-1] == (TAR, "bytes=160-")


def test_a_server_without_range_is_read_from_the_start(run, server, cifar10, tmp_path):
    server.script = ["truncate", "no range"]
    assert run("cifar10") == (0, [])
    assert server.requests == [(TAR, None), (TAR, "bytes=40-")]
    Cifar10().load(tmp_path)


@pytest.mark.parametrize("stale", [b"not the beginning of the archive", bytes(10**5)], ids=["wrong", "too long"])
def test_a_stale_part_is_thrown_away(run, server, cifar10, tmp_path, stale):
    (tmp_path / (TAR + ".part")).write_bytes(stale)
    assert run("cifar10") == (0, [])
    assert [asked for _, asked in server.requests] == [f"bytes={len(stale)}-", None]


def test_a_damaged_download_is_fetched_again_and_never_takes_the_final_name(run, server, mnist, cifar10, tmp_path):
    server.script = ["damage"]
    assert run("mnist") == (0, [])
    server.script = ["damage"] * 4
    before = names(tmp_path)
    code, errors = run("cifar10")
    assert code == 1
    assert len(errors) == 1
    assert "wrong md5" in errors[0]
    assert names(tmp_path) == before


def test_a_busy_server_is_asked_again_and_a_lost_mirror_passed_over(run, server, mnist, cifar10, monkeypatch):
    import torchvision.datasets

    server.script = ["503", "429", "ok"]
    assert run("cifar10") == (0, [])
    assert len(server.requests) == 3
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [server.url + "old/", server.url])
    server.requests.clear()
    server.script = ["404"]
    assert run("mnist") == (0, [])
    assert len(server.requests) == 5  # 404 is not asked twice


def test_without_a_network_one_line_says_so_at_once_and_names_digits(run, script, mnist, monkeypatch):
    def unresolved(request, **_):
        asked.append(request)
        raise urllib.error.URLError(socket.gaierror(-2, "Name or service not known"))

    asked: list = []
    monkeypatch.setattr(script.urllib.request, "urlopen", unresolved)
    code, errors = run("mnist")
    assert code == 1
    assert len(asked) == len(errors) == 1
    assert "no connection" in errors[0]
    assert "data=digits" in errors[0]


def test_an_unknown_name_is_one_line_with_the_allowed_ones(run, server, tmp_path):
    code, errors = run("mnist,svhn")
    assert code == 2
    assert errors == ["unknown data set 'svhn': choose from all, mnist, fashion_mnist, cifar10, cifar100"]
    assert not server.requests
    assert not names(tmp_path)


def test_a_full_disk_leaves_no_final_name_and_the_next_call_goes_on(run, server, cifar10, tmp_path, monkeypatch):
    fsync, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 3:  # the archive, one file of it, and then
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    code, errors = run("cifar10")
    assert code == 1
    assert len(errors) == 1
    assert "No space left" in errors[0]
    assert names(tmp_path) == {TAR, "data_batch_1"}
    assert run("cifar10") == (0, [])
    assert len(server.requests) == 1


def test_a_root_below_a_file_is_one_line(script, cifar10, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert script.main(["cifar10", "--root", str(tmp_path / "file" / "root")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_damaged_file_is_unpacked_again_from_its_archive(run, server, mnist, tmp_path):
    run("mnist")
    raw = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    whole = raw.read_bytes()
    raw.write_bytes(whole[:-1])
    server.requests.clear()
    assert run("mnist") == (0, [])
    assert raw.read_bytes() == whole
    assert not server.requests


def test_a_set_of_whose_files_no_md5_is_known_is_checked_by_its_archive(run, server, mnist, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "UNPACKED_MD5", {})
    server.script = ["damage"]
    assert run("mnist") == (0, [])
    assert Mnist().load(tmp_path).train_inputs.shape == (7, 1, 28, 28)
    (tmp_path / "MNIST/raw/train-images-idx3-ubyte").unlink()
    assert run("mnist") == (0, [])  # from its archive, which is here
    assert len(server.requests) == 5
