"""DTensor on every torch: tensor parallel over one rank is the plain model. Over several: test_sharded.py.

The gradients are made up, for torch 2.4 multiplies no matrices on a mesh of one rank.
"""

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

from syre.core import attach, canonical_parameters
from syre.core.sharded import is_sharded, whole

pytestmark = pytest.mark.slow  # the import of DTensor is


@pytest.fixture
def mesh(tmp_path):
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/ranks", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("form", ["pull", "shift"])
@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_tensor_parallel_over_one_rank_trains_as_the_plain_model(mesh, name, form):
    def train(parallel):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
        if parallel:
            parallelize_module(model, mesh, {"0": ColwiseParallel()})
        optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.1, weight_decay=0.3, foreach=False)
        attach(optimizer, model, sigma=0.5, seed=11, form=form)
        for _ in range(5):
            for parameter in model.parameters():
                parameter.grad = parameter.detach() * 2 + 1
            optimizer.step()
        return canonical_parameters(model)

    mine, plain = train(True), train(False)
    assert is_sharded(mine["0.weight"])
    for key, parameter in plain.items():
        torch.testing.assert_close(whole(mine[key].detach()), parameter.detach(), rtol=0, atol=1e-12)
