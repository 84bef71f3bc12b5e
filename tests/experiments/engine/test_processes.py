"""What several processes print side by side."""

import os
import subprocess
import sys

import pytest

from experiments.engine.processes import write_whole_lines

PRINTS = """
import sys
from experiments.engine.processes import write_whole_lines
if "whole" in sys.argv:
    write_whole_lines()
for stream in (sys.stdout, sys.stderr):
    print("a", "line", file=stream)
    print("another", file=stream, flush=True)
"""


JOB = "from experiments.run import main; main()"  # without the command line, as a launcher calls it


def written(*words):
    """What a Python with its buffering off writes, a piece for each write: a pipe in packet mode keeps them apart."""
    read, write = os.pipe2(os.O_DIRECT)
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    subprocess.run([sys.executable, *words], env=environment, stdout=write, stderr=write)
    os.close(write)
    with os.fdopen(read, "rb", buffering=0) as pipe:
        return [*iter(lambda: pipe.read(4096), b"")]


packets = pytest.mark.skipif(not hasattr(os, "pipe2"), reason="no pipes in packet mode here")


@packets
def test_a_line_and_its_end_are_written_at_once_also_where_buffering_is_off():
    assert written("-c", PRINTS, "whole") == [b"a line\n", b"another\n"] * 2
    assert b"\n" in written("-c", PRINTS)  # the control


@packets
@pytest.mark.parametrize("words", [("-m", "experiments.run", "model=none"), ("-c", JOB, "group=none")])
def test_a_command_and_a_job_in_a_process_of_a_launcher_write_whole_lines(words, tmp_path):
    (line,) = written(*words, f"outputs={tmp_path}")
    assert (line[:7], line[-1:]) == (b"error: ", b"\n")


def test_a_stream_of_another_kind_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)  # as where there is no terminal
    write_whole_lines()
    assert sys.stdout is None
