"""Twins, sign-twins, dead units and heads: planted ones are counted, and distances are those of the definition."""

import json
import math

import pytest
import torch
from torch import Tensor, nn

from syre.diagnostics import units
from syre.diagnostics.structure import Inputs, Structure, changed, named_tensors, read

COUNTS = ("twins", "sign_twins", "duplicates", "dead", "symmetric")


def numbered(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mlp(activation: nn.Module, width: int = 12) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, width), activation, nn.Linear(width, 3)).double()


def measured(model: nn.Module, parameters: dict[str, Tensor] | None = None) -> dict:
    """The entry of the only set of a model, or of the last one."""
    structure = read(model)
    entries = units.measure(structure, named_tensors(model) if parameters is None else parameters)
    json.dumps(entries, allow_nan=False)
    return entries[-1]


def counts(entry: dict) -> list[int]:
    return [entry[key] for key in COUNTS]


@torch.no_grad()
def copied(model: nn.Sequential, source: int, target: int, sign: float = 1.0, outgoing: bool = True) -> None:
    """Neuron `target` becomes a copy of `source`, or its mirror image."""
    model[0].weight[target] = sign * model[0].weight[source]
    model[0].bias[target] = sign * model[0].bias[source]
    if outgoing:
        model[2].weight[:, target] = sign * model[2].weight[:, source]


# ---- counts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.75, 0.9, 1.0])
def test_the_copies_that_figure_1_plants_are_counted_whatever_their_order_and_scale(fraction):
    torch.manual_seed(0)
    models = pytest.importorskip("syre.models", reason="of the checkout")
    model = models.CollapsedMLP(hidden=[100], identical=fraction).build((20,), 10)
    expected = round(100 * fraction)
    structure, parameters = read(model), named_tensors(model)
    (plain,) = units.measure(structure, parameters)
    assert counts(plain) == [expected, 0, expected, 0, expected]
    assert (plain["count"], plain["entries"]) == (100, 31)
    assert plain["symmetry"] == ["permutation", "scale"]
    assert sorted(plain["distances"])[:expected] == [0.0] * expected
    assert plain["groups"] == ([list(range(32))] if expected else [])
    (other,) = units.measure(structure, changed(structure, parameters, numbered(1)))
    assert counts(other) == counts(plain)
    assert sorted(other["distances"]) == pytest.approx(sorted(plain["distances"]), abs=2e-6)
    assert other["nearest"] == pytest.approx(plain["nearest"], abs=2e-6)
    noise = {"layers.0.weight": parameters["layers.0.weight"] + 0.1 * torch.randn(100, 20, generator=numbered(2))}
    assert units.measure(structure, parameters | noise)[0]["twins"] == 0  # control: a change that is no symmetry


def test_signs_of_odd_units_do_not_matter_and_a_twin_of_the_other_sign_is_a_sign_twin():
    model = mlp(nn.Tanh())
    copied(model, 0, 1)
    copied(model, 2, 3, sign=-1.0)
    plain = measured(model)
    assert plain["symmetry"] == ["permutation", "sign"]
    assert counts(plain) == [2, 2, 4, 0, 4]
    assert plain["groups"] == [[0, 1]]
    structure, parameters = read(model), named_tensors(model)
    (other,) = units.measure(structure, changed(structure, parameters, numbered(1)))
    assert (other["twins"] + other["sign_twins"], *counts(other)[2:]) == (4, 4, 0, 4)
    assert sorted(other["distances"]) == pytest.approx(sorted(plain["distances"]), abs=2e-6)
    relu = mlp(nn.ReLU())  # control: there the mirror image is another unit
    copied(relu, 2, 3, sign=-1.0)
    assert counts(measured(relu)) == [0, 0, 0, 0, 0]


def test_equal_incoming_weights_are_duplicates_and_no_twins():
    model = mlp(nn.GELU())
    copied(model, 4, 5, outgoing=False)
    assert counts(measured(model)) == [0, 0, 2, 0, 0]


@pytest.mark.parametrize("part", ["incoming", "outgoing", "both"])
def test_units_without_incoming_or_outgoing_weights_are_dead_and_no_twins(part):
    model = mlp(nn.ReLU())
    with torch.no_grad():
        for unit in (3, 8):
            if part != "outgoing":
                model[0].weight[unit] = 0
                model[0].bias[unit] = 0
            if part != "incoming":
                model[2].weight[:, unit] = 0
    found = measured(model)
    assert counts(found) == [0, 0, 0, 2, 2]
    assert [k for k, distance in enumerate(found["distances"]) if distance == 0] == [3, 8]


def test_groups_are_listed_from_the_largest_on():
    model = mlp(nn.GELU())
    for source, target in ((0, 3), (1, 4), (1, 6), (2, 5)):
        copied(model, source, target)
    found = measured(model)
    assert found["groups"] == [[1, 4, 6], [0, 3], [2, 5]]
    assert found["twins"] == 7


def test_nearly_equal_units_are_twins_up_to_the_tolerance():
    model = mlp(nn.GELU())
    copied(model, 0, 1)
    with torch.no_grad():
        u = torch.cat([model[0].weight[0], model[0].bias[:1], model[2].weight[:, 0]])
        model[0].weight[1, 0] += 0.02 * float(u.norm())  # at a distance of about 0.01
    structure, parameters = read(model), named_tensors(model)
    for tolerance, twins in ((0.009, 0), (0.011, 2)):
        assert units.measure(structure, parameters, tolerance=tolerance)[0]["twins"] == twins


def test_channels_are_compared_with_their_norm_whatever_its_sign_and_scale():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    conv, norm, _, last = model
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            tensor.add_(torch.rand(8))
        for tensor in (conv.weight, conv.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var):
            tensor[5] = tensor[2]
        last.weight[:, 5] = last.weight[:, 2]
        plain = measured(model)
        for tensor in (conv.weight, conv.bias, norm.running_mean, norm.weight):
            tensor[5] = -tensor[5]
        for tensor, factor in ((norm.weight[5], 3), (norm.bias[5], 3), (last.weight[:, 5], 1 / 3)):
            tensor.mul_(factor)
    assert counts(plain) == [2, 0, 2, 0, 2]
    other = measured(model)
    assert counts(other) == counts(plain)
    assert other["distances"] == pytest.approx(plain["distances"], abs=1e-6)
    assert plain["symmetry"] == ["permutation", "sign", "scale"]
    with torch.no_grad():
        norm.weight[5].neg_()  # control: that alone is another channel
    assert counts(measured(model)) == [0, 0, 0, 0, 0]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_left_out_and_no_other_set(value):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 2))
    with torch.no_grad():
        model[0].weight[1, 1] = value
    first, second = units.measure(read(model), named_tensors(model))
    json.dumps([first, second], allow_nan=False)
    assert counts(first) == [None] * 5
    assert first["distances"] == [None] * 6
    assert first["nearest"] == {"min": None, "median": None, "random": None}
    assert counts(second) == [0] * 5


# ---- distances -------------------------------------------------------------------------------------------------------


def test_the_distance_is_that_of_the_parameters_from_the_mirror_of_the_reflection():
    """|w - R w| / 2 over the length of the two units, with R applied to all parameters."""
    model = mlp(nn.Tanh())
    (one,) = read(model).units
    seen = units.look(one, named_tensors(model))
    w = nn.utils.parameters_to_vector(model.parameters()).detach()

    def reflected(i: int, j: int, sign: float) -> Tensor:
        other = mlp(nn.Tanh())
        for a, b in ((i, j), (j, i)):
            with torch.no_grad():
                other[0].weight[a], other[0].bias[a] = sign * model[0].weight[b], sign * model[0].bias[b]
                other[2].weight[:, a] = sign * model[2].weight[:, b]
        return nn.utils.parameters_to_vector(other.parameters()).detach()

    vectors = torch.cat([model[0].weight, model[0].bias[:, None], model[2].weight.T], 1).detach()
    for sign, found in ((1.0, seen.near), (-1.0, seen.signed)):
        for i in range(12):
            distances = [
                float((w - reflected(i, j, sign)).norm() / 2 / torch.cat([vectors[i], vectors[j]]).norm())
                for j in range(12)
                if j != i
            ]
            assert float(found[i]) == pytest.approx(min(distances), rel=1e-6)


@pytest.mark.parametrize(("count", "size", "changes"), [(10, 12, 1), (100, 31, 1), (60, 200, 1), (40, 31, 2)])
def test_the_distance_of_random_units_is_that_of_a_simulation(count, size, changes):
    medians = []
    for seed in range(12):
        u = torch.randn(count, size, generator=numbered(seed), dtype=torch.float64)
        mirror = torch.ones(size, dtype=torch.float64)
        mirror[: size // 2] = -1
        nearest = torch.full((count,), math.inf, dtype=torch.float64)
        for signs in (1.0, mirror)[:changes]:
            lengths = (u.square().sum(1)[:, None] + u.square().sum(1)).sqrt()
            distances = torch.cdist(u, u * signs) / math.sqrt(2) / lengths
            nearest = torch.minimum(nearest, distances.fill_diagonal_(math.inf).amin(1))
        medians.append(float(nearest.median()))
    assert units.random_distance(count, size, changes) == pytest.approx(sum(medians) / len(medians), rel=0.02)


def test_a_network_at_random_is_as_far_from_symmetric_as_the_reference():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 200), nn.Tanh(), nn.Linear(200, 30))
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.normal_()
    found = measured(model)["nearest"]
    assert found["median"] == pytest.approx(found["random"], rel=0.02)
    assert found["min"] < found["median"]


@pytest.mark.parametrize("most", [units.MOST_SIGNS, 1])
def test_signs_of_several_parts_are_found_one_and_two_at_a_time(most, monkeypatch):
    """A residual stream that several layers read through norms of their own: each with a sign of its own."""
    monkeypatch.setattr(units, "MOST_SIGNS", most)

    class Stream(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.out = nn.Linear(5, 8), nn.Linear(12, 2)
            self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(3))
            self.heads = nn.ModuleList(nn.Linear(8, 4) for _ in range(3))

        def forward(self, x):
            x = self.first(x)
            return self.out(torch.cat([h(n(x)).relu() for n, h in zip(self.norms, self.heads, strict=True)], -1))

    torch.manual_seed(0)
    model = Stream()
    with torch.no_grad():
        for norm in model.norms:
            norm.weight.normal_()
            norm.bias.normal_()
        for tensor in (model.first.weight, model.first.bias, *(p for n in model.norms for p in n.parameters())):
            tensor[1] = tensor[0]
        for flipped, head in zip((1, -1, -1), model.heads, strict=True):
            head.weight[:, 1] = flipped * head.weight[:, 0]
        for flipped, norm in zip((1, -1, -1), model.norms, strict=True):
            norm.weight[1] *= flipped
            norm.bias[1] *= flipped
    structure, parameters = read(model), named_tensors(model)
    (stream,) = (one for one in structure.units if one.count == 8)
    assert stream.signs == 3
    entry = units.described(stream, units.look(stream, parameters))
    assert entry["twins"] + entry["sign_twins"] == 2
    with torch.no_grad():
        model.norms[1].weight[1] *= -1  # control
    assert units.described(stream, units.look(stream, parameters))["symmetric"] == 0


# ---- heads -----------------------------------------------------------------------------------------------------------


class Attention(nn.Module):
    """Four heads of size 6, of 20 features."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(20, 24, bias=False) for _ in range(3))
        self.o = nn.Linear(24, 20, bias=False)

    def forward(self, x):
        q, k, v = (layer(x).unflatten(-1, (4, 6)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return self.o(((q @ k.mT / math.sqrt(6)).softmax(-1) @ v).transpose(1, 2).flatten(2))


def attention() -> tuple[Attention, Structure]:
    torch.manual_seed(0)
    model = Attention().double()
    return model, read(model, Inputs((torch.randn(2, 5, 20, dtype=torch.float64),)))


@torch.no_grad()
def in_other_bases(model: Attention) -> None:
    """W_Q^T W_K and W_O W_V of each head stay as they are."""
    for a, b in ((model.q.weight, model.k.weight), (model.v.weight, model.o.weight.T)):
        for rows in torch.arange(24).split(6):
            basis = torch.randn(6, 6, dtype=torch.float64, generator=numbered(int(rows[0])))
            a[rows], b[rows] = basis @ a[rows], torch.linalg.inv(basis).T @ b[rows]


@torch.no_grad()
def test_ranks_of_heads_are_those_that_were_planted_in_whatever_basis():
    model, structure = attention()
    for head, rank in enumerate((1, 2, 6, 4)):
        rows = slice(6 * head, 6 * head + 6)
        a, b = (torch.linalg.qr(torch.randn(20, rank, dtype=torch.float64)).Q for _ in range(2))
        left = torch.zeros(6, rank, dtype=torch.float64)
        left[:rank] = torch.eye(rank)
        model.q.weight[rows], model.k.weight[rows] = left @ a.T, left @ b.T
        model.v.weight[rows], model.o.weight[:, rows] = left @ a.T, b @ left.T
    for _ in range(2):
        (entry,) = units.heads(structure, named_tensors(model))
        json.dumps(entry, allow_nan=False)
        assert (entry["count"], entry["size"], entry["equal"]) == (4, 6, [])
        for part in ("query_key", "output_value"):
            assert entry[part]["rank"] == [1, 2, 6, 4]
            assert entry[part]["rank/effective"] == pytest.approx([1, 2, 6, 4], abs=1e-3)
            assert entry[part]["full"] == 6
        in_other_bases(model)
    model.q.weight[:6] += 0.1 * torch.randn(6, 20, dtype=torch.float64)  # control
    model.k.weight[:6] += 0.1 * torch.randn(6, 20, dtype=torch.float64)
    assert units.heads(structure, named_tensors(model))[0]["query_key"]["rank"] == [6, 2, 6, 4]


@torch.no_grad()
def test_equal_heads_are_found_in_whatever_basis_and_heads_of_which_one_part_is_equal_are_not():
    model, structure = attention()
    first, third = slice(0, 6), slice(12, 18)
    for layer in (model.q, model.k, model.v):
        layer.weight[third] = layer.weight[first]
    model.o.weight[:, third] = model.o.weight[:, first]
    in_other_bases(model)
    assert units.heads(structure, named_tensors(model))[0]["equal"] == [[0, 2]]
    model.o.weight[:, third] *= 1.5
    assert units.heads(structure, named_tensors(model))[0]["equal"] == []
