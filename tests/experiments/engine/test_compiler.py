"""torch's compiler is loaded where something is compiled, and nowhere else."""

import subprocess
import sys

import pytest

LOADED = "torch._dynamo.eval_frame"  # of the compiler itself

RUN = f"""
import sys
from experiments.run import cli

sys.argv = ["run", "experiment=mine", "scale=smoke", "model.hidden=[8]", "train.epochs=1", *sys.argv[1:]]
cli()
assert "torch" in sys.modules
assert "{LOADED}" not in sys.modules
"""

BOTH = f"""
import inspect, sys
import torch
from hydra import compose, initialize_config_dir
from experiments.engine.build import build
from experiments.engine.config import Run, identity
from experiments.engine.experiment import CONFIGS

def optimizer(*words):
    with initialize_config_dir(str(CONFIGS), version_base=None):
        run = Run(config=identity(compose("config", ["data=digits", *words])))
    return build(run, None, torch.device("cpu"))[0].optimizer

first = optimizer()
first.step()
first.zero_grad()
first.load_state_dict(first.state_dict())
inspect.stack()  # looks into all modules
assert "{LOADED}" not in sys.modules

optimizer("compute.compile=true")
assert "{LOADED}" in sys.modules
assert torch._dynamo is sys.modules["torch._dynamo"]
assert torch._dynamo.__file__
optimizer()
assert torch._dynamo is sys.modules["torch._dynamo"]  # what is loaded stays
"""

ASKED = """
import sys
import torch
from experiments.engine import compiler

compiler.spare()
import torch._dynamo
graphs = []
double = torch.compile(lambda x: 2 * x, backend=lambda graph, _: graphs.append(graph) or graph.forward)
assert double(torch.ones(2)).tolist() == [2.0, 2.0]
assert len(graphs) == 1
assert torch._dynamo is sys.modules["torch._dynamo"] is compiler.load()
"""


@pytest.mark.slow
@pytest.mark.parametrize("script", [RUN, BOTH, ASKED], ids=["a run", "one that compiles, after it", "whatever asks"])
def test_it_is_loaded_where_it_is_needed(tmp_path, environment, script):
    command = [sys.executable, "-c", script, f"outputs={tmp_path}"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
