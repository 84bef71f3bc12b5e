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
print("loaded:", "{LOADED}" in sys.modules)
"""

LATER = f"""
import inspect, sys
import torch
from experiments.engine import compiler

compiler.spare()
layer = torch.nn.Linear(2, 2)
optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
layer(torch.ones(1, 2)).sum().backward()
optimizer.step()
optimizer.zero_grad()
optimizer.load_state_dict(optimizer.state_dict())
inspect.stack()  # looks into all modules
assert "{LOADED}" not in sys.modules

graphs = []
double = torch.compile(lambda x: 2 * x, backend=lambda graph, _: graphs.append(graph) or graph.forward)
assert double(torch.ones(2)).tolist() == [2.0, 2.0]
assert len(graphs) == 1
assert "{LOADED}" in sys.modules
assert torch._dynamo is sys.modules["torch._dynamo"] is compiler.load()
assert torch._dynamo.__file__

compiler.spare()  # what is loaded stays
assert torch._dynamo is compiler.load()
"""


def process(script, environment, *words):
    ended = subprocess.run([sys.executable, "-c", script, *words], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize("compile", ["false", "true"])
def test_a_run_loads_it_if_it_compiles(tmp_path, environment, compile):
    out = process(RUN, environment, f"compute.compile={compile}", f"outputs={tmp_path}")
    assert out.endswith(f"loaded: {compile == 'true'}\n")


@pytest.mark.slow
def test_an_optimizer_trains_without_it_and_whatever_else_is_asked_of_it_loads_it(environment):
    process(LATER, environment)
