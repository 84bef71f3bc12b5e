"""A pair of networks: trained as each would be alone, drawn as one, and interpolated."""

import pytest
import torch
from torch import nn

from syre.core import draw_anchors
from syre.models import Pair
from syre.models.layers import FiGLU, LayerNorm
from syre.optim import SGD
from syre.regularizers import Offset, SigmaAsym, WAsym

torch.set_num_threads(1)
INPUTS, CLASSES = 6, 3
PAIR = Pair(hidden=[7, 8])
W_ASYM = WAsym(fixed=[2, 3, 4], kappa=[1.0, 0.5, 0.25], weight_decay=0.06)


def pair(spec: Pair = PAIR, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return spec.build((INPUTS,), CLASSES).double()


def values(net: nn.Module) -> torch.Tensor:
    return torch.cat([weight.flatten() for weight in net.parameters()]).detach()


def test_each_network_sees_its_half_of_a_batch():
    module, x = pair(), torch.randn(10, INPUTS, dtype=torch.float64)
    together = module(x)
    torch.testing.assert_close(together, torch.cat([module.nets[0](x[:5]), module.nets[1](x[5:])]))
    together[:5].sum().backward()
    assert all(weight.grad is not None for weight in module.nets[0].parameters())
    assert all(weight.grad is None or not weight.grad.any() for weight in module.nets[1].parameters())


def test_the_line_begins_at_a_and_ends_at_b():
    module, x = pair(), torch.randn(4, INPUTS, dtype=torch.float64)
    for at, net in enumerate(module.nets):
        for mine, its in zip(module(x, at=float(at), features=True), net(x, features=True), strict=True):
            torch.testing.assert_close(mine, its)
    middle = PAIR.build((INPUTS,), CLASSES).double().nets[0]
    nn.utils.vector_to_parameters((values(module.nets[0]) + values(module.nets[1])) / 2, middle.parameters())
    torch.testing.assert_close(module(x, at=0.5), middle(x))
    outputs = [module(x, at=at) for at in (0.0, 0.5, 1.0)]
    assert (outputs[1] - (outputs[0] + outputs[2]) / 2).abs().max() > 1e-3  # control: it is no mean of the outputs


def test_the_networks_start_apart_and_share_their_anchors():
    module = pair()
    anchors = draw_anchors(module, sigma=1.0, seed=0)
    for name, weight in module.nets[0].named_parameters():
        assert torch.equal(anchors[f"nets.0.{name}"], anchors[f"nets.1.{name}"])
        if "norms" not in name:
            assert (weight != module.nets[1].get_parameter(name)).all()
    own = draw_anchors(pair(Pair(hidden=[7, 8], shared=False)), sigma=1.0, seed=0)  # control
    assert (own["nets.0.layers.0.weight"] != own["nets.1.layers.0.weight"]).all()


def test_an_offset_moves_both_networks_alike():
    module, plain = pair(), pair()
    Offset(sigma=1.0).attach(SGD(lr=0.1).build(module, 0.0), module, 0)
    moved = [values(mine) - values(its) for mine, its in zip(module.nets, plain.nets, strict=True)]
    torch.testing.assert_close(moved[0], moved[1])
    assert moved[0].abs().min() > 0


def test_w_asym_freezes_the_same_entries_of_both_networks_as_many_as_each_layer_says():
    frozen = W_ASYM.frozen(pair(), 0)
    assert len(frozen) == 6
    for place, (count, kappa) in enumerate(zip(W_ASYM.fixed, W_ASYM.kappa, strict=True)):
        (mask, held), (its_mask, its_held) = (frozen[f"nets.{i}.layers.{place}.weight"] for i in (0, 1))
        assert torch.equal(mask, its_mask)
        assert torch.equal(held, its_held)
        assert (mask.sum(1) == count).all()
        assert abs(held.std() / kappa - 1) < 4 / (2 * held.numel()) ** 0.5


def test_w_asym_has_an_entry_for_each_matrix_and_no_more_than_a_row():
    with pytest.raises(ValueError, match="each of the 3 weight matrices"):
        WAsym(fixed=[2, 3], kappa=[1.0, 1.0]).frozen(pair(), 0)
    with pytest.raises(ValueError, match="rows of 6 entries, not 7"):
        WAsym(fixed=[7, 3, 4], kappa=[1.0, 1.0, 1.0]).frozen(pair(), 0)


def test_sigma_asym_gates_by_one_fixed_matrix_per_layer_that_the_networks_share():
    module = pair()
    parameters = [name for name, _ in module.named_parameters()]
    SigmaAsym().prepare(module, 0)
    gates = {name: gate for name, gate in module.named_buffers() if name.endswith("gate")}
    assert [name for name, _ in module.named_parameters()] == parameters
    assert [tuple(gate.shape) for gate in gates.values()] == [(7, 7), (8, 8)] * 2
    for place in (0, 1):
        mine, its = (gates[f"nets.{i}.activations.{place}.function.gate"] for i in (0, 1))
        assert torch.equal(mine, its)
    other = pair()
    SigmaAsym().prepare(other, 1)
    assert (other.nets[0].activations[0].function.gate != mine[0, 0]).all()


def test_a_permutation_of_units_is_a_symmetry_of_gelu_and_none_of_figlu():
    x, order = torch.randn(5, 6), torch.randperm(6, generator=torch.Generator().manual_seed(0))
    gate = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
    figlu = FiGLU(gate)
    torch.testing.assert_close(figlu(x), torch.sigmoid(x @ gate.T) * x)
    torch.testing.assert_close(nn.functional.gelu(x[:, order]), nn.functional.gelu(x)[:, order])
    assert (figlu(x[:, order]) - figlu(x)[:, order]).abs().max() > 1e-3


def test_a_layer_norm_with_stacked_parameters_is_each_of_its_own():
    x, norms = torch.randn(3, 5, 4), [LayerNorm(4) for _ in range(3)]
    for norm in norms:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    stacked = {name: torch.stack([norm.get_parameter(name) for norm in norms]) for name in ("weight", "bias")}
    together = torch.func.functional_call(norms[0], stacked, (x,))
    torch.testing.assert_close(together, torch.stack([norm(part) for norm, part in zip(norms, x, strict=True)]))


def test_an_odd_batch_cannot_be_split():
    with pytest.raises(ValueError, match="batch_size must be even"):
        pair()(torch.zeros(3, INPUTS, dtype=torch.float64))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"activation": "sine"}, "model.activation must be one of"),
        ({"norm": "batch"}, "model.norm must be one of none, layer, got 'batch'"),
        ({"hidden": []}, "model.hidden must list positive widths"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Pair(**settings)
