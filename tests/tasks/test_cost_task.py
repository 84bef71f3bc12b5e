"""What syre adds to a training step: one copy of the parameters, and a time that is measured and not judged here."""

import pytest
import torch

from syre.tasks.cost import FORMS, NETWORKS, Cost

torch.set_num_threads(1)
QUICK = {"batch": 2, "rounds": 2, "seconds": 0.0, "device": "cpu"}
WIDTHS = {"mlp": 16, "resnet18": 4, "vit": 8}


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_attach_adds_one_copy_of_the_parameters_and_parametrize_up_to_two(network: str) -> None:
    values = Cost(network=network, width=WIDTHS[network], **QUICK).measure(0)
    assert values["copies/attach"] == pytest.approx(1, abs=0.02)
    assert 1 <= values["copies/parametrize"] <= 2.1
    for form in FORMS:
        assert values[f"MB/{form}"] > 3 * values["parameters"]  # with gradients and momentum
        assert values[f"epoch/{form}"] == pytest.approx(25_000 * values[f"ms/{form}"] / 1e3)
    assert values["memory/attach"] == pytest.approx(values["MB/attach"] / values["MB/plain"])
    assert min(values.values()) > 0


def test_memory_is_that_of_the_network_and_grows_with_the_batch() -> None:
    small, large = (Cost(network="mlp", width=16, **QUICK | {"batch": batch}).measure(0) for batch in (2, 64))
    assert small["parameters"] == pytest.approx(4 * (3072 * 16 + 2 * 16 * 16 + 16 * 10 + 3 * 16 + 10) / 2**20)
    assert large["MB/plain"] - small["MB/plain"] >= 62 * 3072 * 4 / 2**20  # of the inputs alone
    assert large["parameters"] == small["parameters"]


def test_measuring_leaves_the_global_stream_as_it_was() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    Cost(network="mlp", width=4, **QUICK).measure(1)
    assert torch.equal(torch.random.get_rng_state(), before)


BAD = {"network": "cnn", "width": 0, "batch": 0, "rounds": 0, "seconds": -1}


@pytest.mark.parametrize(("key", "value"), BAD.items())
def test_settings_out_of_range_are_named(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"task.{key} must be"):
        Cost(**{key: value})
