"""What holds for all tests: W&B, and lines that tell of progress, are asked for by those that are about them, and what
fails fails again."""

import os
import random
import signal

import numpy
import pytest
import torch

os.environ["WANDB_MODE"] = "disabled"
os.environ["SYRE_PROGRESS"] = "off"

# In the background of a shell Ctrl-C is ignored, and by all processes that begin there: tests that send it would hang.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def seeded():
    """Every test begins with the same random numbers, whichever ran before it."""
    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)
