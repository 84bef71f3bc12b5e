"""Tiny stand-ins for MNIST and CIFAR-10, served by a local HTTP server that can be told to misbehave."""

import gzip
import hashlib
import importlib.util
import io
import pickle
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets

from syre.data import files, images


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `content` by name, each request as the next word of `script` says ("ok" once it has run out)."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content: dict[str, bytes] = {}
        self.script: list[str] = []
        self.requests: list[tuple[str, str | None]] = []  # (file, Range)
        self.url = f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, asked = self.server, self.headers["Range"]
        name = self.path.rsplit("/", 1)[-1]
        server.requests.append((name, asked))
        mood = server.script.pop(0) if server.script else "ok"
        if mood.isdigit():
            return self.send_error(int(mood))
        body = server.content[name]
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and mood != "no range" else 0
        if start >= len(body):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        if mood == "damage":
            body = body[:-1] + bytes([body[-1] ^ 1])
        self.wfile.write(body[start : start + 40] if mood == "truncate" else body[start:])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    """scripts/data.py as a module, without its pauses."""
    spec = importlib.util.spec_from_file_location("data_script", Path(__file__).parents[2] / "scripts" / "data.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "BACKOFF", 0.0)
    return module


@pytest.fixture
def mnist(server: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """A tiny MNIST on the server, in place of torchvision's; returns its arrays by file name."""
    draw = np.random.default_rng(0)
    arrays = {
        "train-images-idx3-ubyte": draw.integers(256, size=(7, 28, 28), dtype=np.uint8),
        "train-labels-idx1-ubyte": draw.integers(10, size=7, dtype=np.uint8),
        "t10k-images-idx3-ubyte": draw.integers(256, size=(3, 28, 28), dtype=np.uint8),
        "t10k-labels-idx1-ubyte": draw.integers(10, size=3, dtype=np.uint8),
    }
    resources = []
    for name, array in arrays.items():
        raw = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()
        archive = gzip.compress(raw, mtime=0)
        server.content[name + ".gz"] = archive
        resources.append((name + ".gz", md5(archive)))
        monkeypatch.setitem(files.UNPACKED_MD5, md5(archive), md5(raw))
    fake = type("MNIST", (torchvision.datasets.MNIST,), {"mirrors": [server.url], "resources": resources})
    monkeypatch.setattr(torchvision.datasets, "MNIST", fake)
    images._read.cache_clear()
    return arrays


@pytest.fixture
def cifar10(server: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict]:
    """A tiny CIFAR-10 on the server, in place of torchvision's; returns its batches by file name."""
    draw = np.random.default_rng(0)
    batches: dict[str, dict] = {
        name: {"data": draw.integers(256, size=(n, 3072), dtype=np.uint8), "labels": draw.integers(10, size=n).tolist()}
        for name, n in (("data_batch_1", 4), ("data_batch_2", 3), ("test_batch", 2))
    }
    packed = {name: pickle.dumps(batch) for name, batch in batches.items()}
    packed["batches.meta"] = pickle.dumps({"label_names": list("abcdefghij")})
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in {**packed, "readme.html": b"not read"}.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    archive = buffer.getvalue()
    server.content["cifar-10-python.tar.gz"] = archive
    attributes = {
        "url": server.url + "cifar-10-python.tar.gz",
        "tgz_md5": md5(archive),
        "train_list": [[name, md5(packed[name])] for name in ("data_batch_1", "data_batch_2")],
        "test_list": [["test_batch", md5(packed["test_batch"])]],
        "meta": {"filename": "batches.meta", "key": "label_names", "md5": md5(packed["batches.meta"])},
    }
    fake = type("CIFAR10", (torchvision.datasets.CIFAR10,), attributes)
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fake)
    images._read.cache_clear()
    return batches
