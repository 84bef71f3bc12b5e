"""These tests need `make test-frameworks`; in .venv alone, which has no frameworks, they are skipped."""

import gc
import os
import warnings
from importlib.util import find_spec

import pytest

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
MISSING = [name for name in ("accelerate", "lightning", "peft", "timm", "transformers") if find_spec(name) is None]


class Elsewhere(pytest.File):
    """A file whose tests cannot run here."""

    def collect(self):
        pytest.skip(f"needs {MISSING[0]}: make test-frameworks")


def pytest_pycollect_makemodule(module_path, parent):
    return Elsewhere.from_parent(parent, path=module_path) if MISSING else None


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """What a framework writes without being asked lies in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SB3_LOGDIR", str(tmp_path))


@pytest.fixture(autouse=True)
def fresh_process():
    """accelerate, and so the Trainer, keeps what it was told in global state, as if each process had one run."""
    yield
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def pytest_collection_finish(session):
    gc.freeze()  # the Trainer collects garbage at each start, and there is none in what the frameworks have loaded


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        for text in (".*num_workers.*", ".*LeafSpec.*", ".*does not have many workers.*"):
            warnings.filterwarnings("ignore", message=text)
        yield
