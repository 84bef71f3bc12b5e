"""timm's models as stock models: those that `make diagnostics` trains, and what is said of others."""

import pytest
import torch
import yaml
from hydra.utils import get_class

from syre.models import Stock
from tests.experiments.conftest import CONFIGS

torch.set_num_threads(1)


def networks():
    """Library, network and size of each stock model of the experiment at cpu scale."""
    blocks = yaml.safe_load((CONFIGS / "experiment/diagnostics.yaml").read_text())["runs"]
    stock = [block for block in blocks if block["model"] == "stock"]
    return sorted(
        {
            (block["model.library"], name, block.get("model.size", 0))
            for block in stock
            for name in block["model.network"]["cpu"]
        }
    )


def test_they_are_twelve_of_torchvision_and_eight_of_timm():
    libraries = [library for library, *_ in networks()]
    assert (libraries.count("torchvision"), libraries.count("timm")) == (12, 8)


@pytest.mark.parametrize(("library", "network", "size"), networks())
def test_each_gives_logits_and_what_its_last_layer_reads_and_draws_nothing(library, network, size):
    cls = get_class(yaml.safe_load((CONFIGS / "model/stock.yaml").read_text())["_target_"])
    model = cls(library=library, network=network, size=size).build((3, 32, 32), 10).train()
    x, random = torch.randn(2, 3, 32, 32), torch.random.get_rng_state()
    logits, features = model(x, features=True)
    assert torch.equal(random, torch.random.get_rng_state())
    assert logits.shape == (2, 10)
    torch.testing.assert_close(model.net.get_submodule(model.last)(features), logits)


def test_other_channels_and_sizes_are_built_too():
    model = Stock(library="timm", network="test_vit", size=48).build((1, 8, 8), 5)
    logits, features = model(torch.randn(3, 1, 8, 8), features=True)
    assert (logits.shape, features.shape) == ((3, 5), (3, 64))
    assert model.net.patch_embed.img_size == (48, 48)


def test_a_name_that_timm_does_not_know_is_one_line():
    with pytest.raises(ValueError, match=r"^model.network must be one of timm.list_models\(\), got 'vit_huge'$"):
        Stock(library="timm", network="vit_huge").build((3, 32, 32), 10)
