"""Quiet for libraries that print past Python's own streams."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Drop what C writes to stdout and stderr: Bullet greets at its import and at the start of each client."""
    sys.stdout.flush()
    null, kept = os.open(os.devnull, os.O_WRONLY), {stream: os.dup(stream) for stream in (1, 2)}
    for stream in kept:
        os.dup2(null, stream)
    try:
        yield
    finally:
        ctypes.CDLL(None).fflush(None)  # what C has still in its buffer
        for stream, own in kept.items():
            os.dup2(own, stream)
            os.close(own)
        os.close(null)
