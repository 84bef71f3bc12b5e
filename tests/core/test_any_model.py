"""Any model: which scale each of its parameters gets, who is left out, and what is said about it."""

import copy
import math
import re
import warnings
from collections import Counter, defaultdict

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.utils._python_dispatch import TorchDispatchMode

from syre.core import (
    GuessedScale,
    anchor_std,
    attach,
    canonical_parameters,
    draw_anchors,
    fan_in,
    merge,
    parametrize,
    scale,
    scale_table,
    slots,
)
from tests.core import architectures


def module(kind, attributes=None, **shapes):
    """A module of a class called `kind` with parameters of these shapes."""
    made = type(kind, (nn.Module,), {})()
    for name, shape in shapes.items():
        made.register_parameter(name, nn.Parameter(torch.randn(shape)))
    for name, value in (attributes or {}).items():
        setattr(made, name, value)
    return made


def guessed(call):
    """What `call` announces, each a line; and what it returns."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call()
    return [str(one.message) for one in caught if issubclass(one.category, GuessedScale)], result


# ---- the rule --------------------------------------------------------------------------------------------------------

EXPERTS = {"gate_up_proj": (3, 14, 5), "down_proj": (3, 5, 7)}  # of F.linear: (E, out, in)
TRANSPOSED = {"gate_up_proj": (3, 5, 14), "down_proj": (3, 7, 5)}  # of x @ W: (E, in, out)
BIASES = {"gate_up_proj_bias": (3, 14), "down_proj_bias": (3, 5)}
WIDTHS = {"gate_up_proj": 5, "down_proj": 7}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (module("Conv1D", weight=(6, 18), bias=(18,)), {"weight": 6, "bias": 6}),
        (module("Other", weight=(6, 18), bias=(18,)), {"weight": 18, "bias": 18}),  # torch's own order: control
        (module("Other", {"in_features": 6}, weight=(6, 18), bias=(18,)), {"weight": 6, "bias": 6}),
        (module("MixtralExperts", **EXPERTS), WIDTHS),
        (module("Llama4TextExperts", **TRANSPOSED), WIDTHS),
        (
            module("Experts", {"is_transposed": True}, **TRANSPOSED, **BIASES),
            WIDTHS | {"gate_up_proj_bias": 5, "down_proj_bias": 7},
        ),
        (
            module("Any", {"is_transposed": False}, up_proj=(3, 7, 5), down_proj=(3, 5, 7)),
            {"up_proj": 5, "down_proj": 7},
        ),
        (module("Experts", gate_up_proj=(1, 14, 5), down_proj=(1, 5, 7)), WIDTHS),  # a single expert
        (module("ParallelExperts", weight=(4, 9, 5)), {"weight": 5}),
        (module("FlexibleLinear", weight=(4, 9, 5)), {"weight": 5}),  # one matrix for each of four codebooks
        (module("LlamaRMSNorm", weight=(7,)), {"weight": 7}),
        (module("LayerNorm2d", weight=(1, 7, 1, 1), bias=(1, 7, 1, 1)), {"weight": 7, "bias": 7}),
        (module("Attention", q_bias=(7,), pos_bias_u=(4, 6)), {"q_bias": 7, "pos_bias_u": 6}),
        (module("Block", gamma=(7, 1, 1), mask_token=(1, 1, 9), logit_scale=(4, 1, 1)),
         {"gamma": 7, "mask_token": 9, "logit_scale": 4}),
        (module("Clip", logit_scale=(), temperature=(1,), gain=(1, 1, 1), none=(0, 5)),
         dict.fromkeys(["logit_scale", "temperature", "gain", "none"])),
        (module("Tokens", query_tokens=(1, 32, 9), grid=(8, 8, 9), rel_pos_h=(27, 6)),
         {"query_tokens": 9, "grid": 9, "rel_pos_h": 6}),
        (module("Positions", pos_embed=(1, 12, 8, 8), pos_embed_win=(1, 12, 8, 8), position_embedding=(1, 8, 8, 12)),
         dict.fromkeys(["pos_embed", "pos_embed_win", "position_embedding"], 12)),
        (module("Swin", relative_position_bias_table=(169, 3)), {"relative_position_bias_table": 3}),
        (module("Swin", relative_position_bias_table=(169, 1)), {"relative_position_bias_table": 1}),  # of one head
        (module("MaxViT", relative_position_bias_table=(3, 13, 13)), {"relative_position_bias_table": 3}),
        (module("LeViT", attention_biases=(4, 196)), {"attention_biases": 4}),
        (module("CLIP", text_projection=(6, 18), proj=(6, 18)), {"text_projection": 6, "proj": 6}),
        (module("XLNetRelativeAttention", q=(12, 4, 5), o=(12, 4, 5)), {"q": 12, "o": 20}),
        (module("DynamicConv", kernel=(8, 4, 3, 3)), {"kernel": 36}),
        (module("DynamicConv", {"in_channels": 8, "groups": 2, "kernel_size": (3, 3)}, weight=(4, 20 * 36)),
         {"weight": 36}),
        (nn.Bilinear(3, 4, 5), {"weight": 12, "bias": 12}),
        (nn.PReLU(), {"weight": None}),
        (nn.PReLU(6), {"weight": 6}),
        (weight_norm(nn.Conv1d(4, 8, 5)), dict.fromkeys(
            ["bias", "parametrizations.weight.original0", "parametrizations.weight.original1"], 20)),
        (weight_norm(module("Conv1D", weight=(6, 18))),
         {"parametrizations.weight.original0": 6, "parametrizations.weight.original1": 6}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)  # fmt: skip
def test_the_rule_gives_every_tensor_its_fan_in(model, expected):
    found = {scale.name: scale.fan_in for scale in scale_table(model)}
    assert {name: found[name] for name in expected} == expected
    for name, slot in slots(model).items():
        if found[name] is not None:
            assert fan_in(slot) == found[name]
            assert anchor_std(slot, 0.5) == 0.5 / math.sqrt(found[name])
            continue
        assert anchor_std(slot, 0.5) is None
        with pytest.raises(ValueError, match=rf"{name}.*no symmetry to break"):
            fan_in(slot)


class Tied(nn.Module):
    """The head of BERT: its bias is that of the layer inside too, and comes first."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(90))
        self.decoder = nn.Linear(6, 90)
        self.decoder.bias = self.bias


def test_a_parameter_tied_to_one_of_the_table_has_what_that_has():
    model = Tied()
    (bias, weight) = scale_table(model)
    assert (bias.fan_in, bias.known, weight.fan_in) == (6, True, 6)
    model.decoder.bias = None
    assert scale_table(model)[0].fan_in == 6  # of the layer that it is added to
    model.decoder = nn.Linear(6, 80)
    assert scale_table(model)[0].fan_in == 90  # control: of none


def test_adapters_have_the_rank_that_they_sum_over():
    """As PEFT has them: LoRA on an embedding (A: rank x vocabulary, B: width x rank), DoRA's magnitude, IA3."""
    layer = nn.Embedding(50, 12)
    layer.lora_embedding_A = nn.ParameterDict({"default": torch.zeros(3, 50)})
    layer.lora_embedding_B = nn.ParameterDict({"default": torch.zeros(12, 3)})
    layer.lora_magnitude_vector = nn.ModuleDict({"default": module("DoraEmbeddingLayer", weight=(12,))})
    layer.ia3_l = nn.ParameterDict({"default": torch.ones(12, 1)})
    found = {scale.kind: scale.fan_in for scale in scale_table(layer)}
    assert found == {
        "Embedding.weight": 12,
        "Embedding.lora_embedding_A": 3,
        "Embedding.lora_embedding_B": 3,
        "DoraEmbeddingLayer.weight": 12,
        "Embedding.ia3_l": 12,
    }


# ---- what is said ----------------------------------------------------------------------------------------------------


class Strange(nn.Module):
    """Kinds that torch does not have, and some that it has."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(5, 8)
        self.norms = nn.ModuleList(module("LlamaRMSNorm", weight=(8,)) for _ in range(30))
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.logit_scale = nn.Parameter(torch.tensor(4.6))

    def forward(self, x):
        x = self.body(x) + self.token[0]
        for norm in self.norms:
            x = x * norm.weight
        return x * self.logit_scale


def adamw(model, **options):
    return torch.optim.AdamW(model.parameters(), **{"lr": 0.1, "weight_decay": 0.5, **options})


def test_one_line_names_every_kind_once():
    model = Strange()
    (line,), handle = guessed(lambda: attach(adamw(model), model))
    assert line.count("LlamaRMSNorm.weight") == 1
    for part in (
        "LlamaRMSNorm.weight x 30 (d = 8, its length)",
        "Strange.token (d = 8",
        "one entry: Strange.logit_scale",
    ):
        assert part in line
    assert "\n" not in line
    assert "Linear" not in line
    assert handle.state_dict()["names"] == sorted(canonical_parameters(model).keys() - {"logit_scale"})


def test_nothing_is_said_of_kinds_of_torch_of_absolute_scales_and_of_what_is_frozen():
    plain = nn.Sequential(nn.Linear(3, 1), nn.LayerNorm(1), weight_norm(nn.Linear(1, 4)))
    assert guessed(lambda: attach(adamw(plain), plain))[0] == []
    assert guessed(lambda: draw_anchors(plain, sigma=0.01, seed=0, strict=True))[0] == []
    model = Strange()
    (line,), anchors = guessed(lambda: draw_anchors(model, sigma=0.01, seed=0, unit="absolute"))
    assert "logit_scale" in line and "RMSNorm" not in line and "logit_scale" not in anchors  # noqa: PT018
    for parameter in (*model.norms.parameters(), model.token, model.logit_scale):
        parameter.requires_grad_(False)
    assert guessed(lambda: draw_anchors(model, sigma=0.01, seed=0))[0] == []


def test_the_line_points_at_the_caller():
    model = Strange()
    with pytest.warns(GuessedScale) as caught:
        attach(adamw(model), model)
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    "call",
    [
        lambda model: attach(adamw(model), model, strict=True),
        lambda model: parametrize(model, strict=True),
        lambda model: draw_anchors(model, sigma=0.01, seed=0, strict=True),
    ],
    ids=["attach", "parametrize", "draw_anchors"],
)
def test_strict_names_all_that_are_unknown_and_changes_nothing(call):
    model = Strange()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="no known scale") as raised:
        call(model)
    message = str(raised.value)
    for name in ("norms.0.weight", "norms.29.weight", "'token' of Strange.token, shape (1, 1, 8)", "'logit_scale'"):
        assert name in message
    assert "body.weight" not in message
    for way in ("function", "strict=False", "decayed groups"):
        assert way in message
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.requires_grad_(False)  # frozen ones are no offenders
    assert draw_anchors(model, sigma=0.01, seed=0, strict=True).keys() == {"body.weight", "body.bias"}


@pytest.mark.parametrize("unit", ["relative", "absolute"])
def test_a_function_may_leave_the_rest_to_the_rule(unit):
    model = Strange()
    given = {"token": 0.25, "logit_scale": 0.5}
    lines, stds = guessed(lambda: {s.name: s.std for s in scale_table(model, lambda name, p: given.get(name), unit)})
    assert lines == []
    default = {s.name: s.std for s in scale_table(model, 0.01, unit)}
    assert stds == default | given
    assert default["logit_scale"] is None
    with pytest.raises(ValueError, match="no known scale") as raised:
        draw_anchors(model, sigma=lambda name, p: given.get(name), seed=0, strict=True)
    assert "token" not in str(raised.value)
    by_default = guessed(lambda: draw_anchors(model, sigma=0.01, seed=0, unit=unit))[1]
    drawn = guessed(lambda: draw_anchors(model, sigma=lambda name, p: given.get(name), seed=0, unit=unit))[1]
    assert drawn.keys() == by_default.keys() | {"logit_scale"}
    assert all(torch.equal(drawn[name], by_default[name]) for name in by_default.keys() - {"token"})


def test_a_row_of_the_table_reads_as_a_line():
    token, scale = scale_table(Strange())[0:2]
    assert str(token) == "token [1, 1, 8] Strange.token: std 0.00354, its length"
    assert str(scale) == "logit_scale [] Strange.logit_scale: std none, one entry"


# ---- who is left out -------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::syre.core.GuessedScale")
@pytest.mark.parametrize(("form", "sigma_d"), [("pull", 0.0), ("shift", 0.0), ("pull", 0.1)])
@pytest.mark.parametrize("optim", [torch.optim.AdamW, torch.optim.SGD])
def test_a_step_does_to_what_is_left_out_what_plain_decay_does(optim, form, sigma_d):
    one, other = Strange(), Strange()
    other.load_state_dict(one.state_dict())
    steps = [optim(model.parameters(), lr=0.1, weight_decay=0.5) for model in (one, other)]
    handle = attach(steps[0], one, form=form, sigma_d=sigma_d, start="keep")
    assert "logit_scale" not in handle.anchors
    assert "logit_scale" not in handle.scales
    for optimizer, model in zip(steps, (one, other), strict=True):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 0.1)
        optimizer.step()
    assert torch.equal(one.logit_scale, other.logit_scale)
    assert not torch.equal(one.body.weight, other.body.weight)  # control
    assert not torch.equal(one.token, other.token)


@pytest.mark.filterwarnings("ignore::syre.core.GuessedScale")
@pytest.mark.parametrize("form", ["pull", "shift"])
def test_a_parameter_that_comes_later_is_left_out_as_from_the_start(form):
    model = Strange()
    late = [model.logit_scale, model.token]
    rest = [p for p in model.parameters() if all(p is not one for one in late)]
    optimizer = torch.optim.SGD(rest, lr=0.1, weight_decay=0.5)
    handle = attach(optimizer, model, form=form)
    optimizer.add_param_group({"params": late})
    before = model.logit_scale.item()
    for _ in range(2):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    assert "token" in handle.anchors
    assert "logit_scale" not in handle.anchors
    assert model.logit_scale.item() == pytest.approx(before * 0.95**2)


def test_a_policy_of_one_action_keeps_the_anchors_of_torch_and_of_its_log_std():
    model = nn.Sequential(nn.Linear(1, 1), module("Gaussian", log_std=(1,)))
    lines, anchors = guessed(lambda: draw_anchors(model, sigma=0.01, seed=0))
    assert (lines, len(anchors)) == ([], 3)


def test_frozen_parameters_are_no_offenders_whatever_their_dtype():
    model = Strange()
    model.norms.bfloat16().requires_grad_(False)
    model.logit_scale.requires_grad_(False)
    model.packed = nn.Parameter(torch.zeros(4, dtype=torch.uint8), requires_grad=False)
    model.wave = nn.Linear(3, 3, dtype=torch.complex64).requires_grad_(False)
    model.still = nn.Linear(3, 3).requires_grad_(False)
    handle = guessed(lambda: attach(adamw(model), model))[1]
    assert handle.anchors.keys() == {"body.weight", "body.bias", "token", "still.weight", "still.bias"}
    guessed(lambda: parametrize(model))
    trained = Strange().bfloat16()
    with pytest.raises(ValueError, match=r"'token' is torch.bfloat16"):
        attach(adamw(trained), trained)


@pytest.mark.filterwarnings("ignore::syre.core.GuessedScale")
def test_a_kind_that_is_thawed_later_decays_toward_its_anchor():
    model = Strange()
    model.norms.requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.5)
    handle = attach(optimizer, model, start="keep")
    weight = model.norms.requires_grad_(True)[0].weight
    expected = weight - 0.05 * (weight - handle.anchors["norms.0.weight"])
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(weight, expected)


@pytest.mark.filterwarnings("ignore::syre.core.GuessedScale")
@pytest.mark.parametrize("start", ["shift", "keep"])
def test_the_module_form_has_the_same_anchors_and_merges(start):
    class Model(Strange):
        def __init__(self):
            super().__init__()
            self.normed = weight_norm(nn.Linear(5, 8))
            self.extra = nn.ParameterList([torch.randn(8)])

        def forward(self, x):
            return super().forward(x) + self.normed(x) * self.extra[0]

    model = Model()
    attached = copy.deepcopy(model)
    attach(adamw(attached), attached, start=start)
    x = torch.randn(3, 5)
    torch.testing.assert_close(parametrize(model, start=start)(x), attached(x))
    torch.testing.assert_close(merge(model)(x), attached(x))
    assert model.state_dict().keys() == attached.state_dict().keys()


@pytest.mark.filterwarnings("ignore::syre.core.GuessedScale")
def test_look_alikes_of_norms_are_no_gains():
    """Some multiply by 1 + w and start at 0, as Gemma's; a name does not tell."""
    model = nn.Sequential(nn.LayerNorm(4), module("GemmaRMSNorm", weight=(4,)))
    zero, one = (draw_anchors(model, sigma=0.1, seed=0, gains=gains) for gains in (0.0, 1.0))
    moved = {name: (one[name] - zero[name]).mean().item() for name in zero}
    assert moved == pytest.approx({"0.weight": 1, "0.bias": 0, "1.weight": 0})


# ---- the field's models ----------------------------------------------------------------------------------------------


def by_torch(slot, owner, leaf):
    """How many inputs an output of a kind of torch's sums over, by the shapes of its tensors; None for other kinds."""
    weight = getattr(owner, "weight", None)
    if isinstance(owner, nn.modules.conv._ConvTransposeNd):
        return weight.shape[0] // owner.groups * math.prod(weight.shape[2:])
    if isinstance(owner, nn.Linear | nn.modules.conv._ConvNd) and leaf in ("weight", "bias"):
        return math.prod(weight.shape[1:])
    if isinstance(owner, nn.Embedding) and leaf == "weight":
        return weight.shape[1]
    if isinstance(owner, nn.modules.batchnorm._NormBase | nn.LayerNorm | nn.GroupNorm | nn.RMSNorm):
        return weight.numel()
    if isinstance(owner, nn.MultiheadAttention):
        return owner.out_proj.weight.shape[0]
    if leaf in scale.BARE:
        return max(slot.parameter.shape[1:]) if slot.parameter.dim() == 4 else slot.parameter.shape[-1]
    return None


def by_words(words, slot, model, table):
    """d as a row of the table has it, from the shape alone."""
    shape, (owner, _) = slot.parameter.shape, slot.place
    if words == "none":
        return None
    if words == "length":
        (length,) = (size for size in shape if size > 1)
        return length
    if words.startswith("dim "):
        return math.prod(shape[int(i)] for i in words.split()[1:])
    if words == "as the weight it makes":
        return math.prod(owner.weight.shape[1:])  # of a convolution
    if words == "in_channels / groups * kernel_size":
        return math.prod(shape[1:]) // owner.out_channels
    if words.startswith("tied to "):
        return model.get_submodule(words.removeprefix("tied to ").rpartition(".")[0]).weight.shape[1]
    other = words.removeprefix("as ")
    if isinstance(child := getattr(owner, other), nn.Module):
        return math.prod(child.weight.shape[1:])
    (its,) = {row for kind, row in table if kind == f"{type(owner).__name__}.{other}"}
    return by_words(its, next(s for s in slots(model).values() if s.parameter is child), model, table)


def committed():
    """`library model` -> (kind, d in words) -> how many, of `architectures.txt`."""
    table = defaultdict(dict)
    for line in architectures.TABLE.read_text().splitlines():
        model, kind, count, words = line.split(" | ")
        table[model][kind, words] = int(count)
    return table


def mismatches(model, table):
    """The parameters that have another d than their shape and the table say; and those that the table does not say."""
    counts, wrong = Counter(), []
    found = slots(model)
    for got in scale_table(model):
        slot = found[got.name]
        if got.rule == "table":
            right = by_torch(slot, slot.module, slot.leaf) == got.fan_in
        else:
            row = got.kind, architectures.expression(got)
            counts[row] += 1
            right = row in table and by_words(row[1], slot, model, table) == got.fan_in
        if not right:
            wrong.append(str(got))
    differ = [key for key in counts.keys() | table if counts[key] != table.get(key)]
    return wrong + [f"{key}: {counts[key]}, not {table.get(key)}" for key in differ]


def every(library):
    """Each of its models; skipped where the library is not installed."""
    if library not in architectures.available():
        return [pytest.param(library, None, marks=pytest.mark.skip(reason=f"no {library}"))]
    return [pytest.param(library, name, id=name) for name in architectures.LIBRARIES[library]()]


@pytest.mark.slow
@pytest.mark.parametrize("library", ["torchvision", "timm", "transformers"])
def test_each_parameter_of_each_model_gets_what_the_table_says(library, capsys):
    pytest.importorskip(library)
    table, wrong, count = committed(), {}, 0
    for name, build in architectures.LIBRARIES[library]().items():
        model = architectures.on_meta(build)
        count += len(canonical_parameters(model))
        if found := mismatches(model, table.pop(f"{library} {name}", {})):
            wrong[name] = found
    assert wrong == {}
    assert [key for key in table if key.startswith(f"{library} ")] == []  # models that are no more
    with capsys.disabled():
        print(f"\n{library}: {len(architectures.LIBRARIES[library]())} models, {count} parameters")


@pytest.mark.parametrize("name", ["vit_b_16", "swin_t", "swin_v2_t", "convnext_tiny", "maxvit_t", "mvit_v2_s"])
def test_models_of_torchvision_have_the_scales_of_the_table(name):
    pytest.importorskip("torchvision")
    model = architectures.on_meta(architectures.LIBRARIES["torchvision"]()[name])
    table = committed().get(f"torchvision {name}", {})
    assert mismatches(model, table) == []
    if name != "vit_b_16":  # control
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scale, "_by_shape", lambda module, leaf, parameter: (7, "its length"))
            assert mismatches(model, table) != []


class Contractions(TorchDispatchMode):
    """While it runs: over how many entries each product with a parameter sums, by the name of the parameter."""

    SAME = ("index", "clone", "_to_copy", "_weight_norm_interface", "index_select", "repeat")

    def __init__(self, model):
        super().__init__()
        self.found = defaultdict(set)
        self._of = {p.untyped_storage().data_ptr(): name for name, p in canonical_parameters(model).items()}
        self._alive = []

    def _name(self, tensor):
        return self._of.get(tensor.untyped_storage().data_ptr()) if isinstance(tensor, torch.Tensor) else None

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        kind = func.overloadpacket.__name__
        operands = {"mm": args[:2], "bmm": args[:2], "addmm": args[1:3], "baddbmm": args[1:3]}.get(kind, ())
        for operand in operands:
            self.found[self._name(operand)].add(operands[0].shape[-1])
        if kind == "convolution":
            weight, transposed, groups = args[1], args[6], args[8]
            summed = (
                weight.shape[0] // groups * math.prod(weight.shape[2:]) if transposed else math.prod(weight.shape[1:])
            )
            self.found[self._name(weight)].add(summed)
        if kind in self.SAME and (name := self._name(args[0])) is not None:
            made = out[0] if isinstance(out, tuple) else out
            self._of[made.untyped_storage().data_ptr()] = name
        self._alive.append(out)  # so that no storage is used twice
        return out


def inputs_of(name, model):
    """What the forward pass of a small model of transformers takes."""
    words = torch.arange(1, 8)[None]
    config = model.config
    if name == "whisper":
        return {"input_features": torch.randn(1, 16, 40), "decoder_input_ids": words}
    if model.main_input_name == "input_values":
        return {"input_values": torch.randn(1, 800)}
    size = getattr(config, "image_size", None) or getattr(getattr(config, "vision_config", None), "image_size", 32)
    pixels = {"pixel_values": torch.randn(1, 3, size, size)}
    if name in ("clip", "siglip"):
        return {"input_ids": words, **pixels}
    if model.main_input_name == "pixel_values":
        return pixels
    return {"input_ids": words} | ({"decoder_input_ids": words} if config.is_encoder_decoder else {})


def measured(model, **inputs):
    with torch.no_grad(), Contractions(model.eval()) as products:
        model(*inputs.pop("positional", ()), **inputs)
    return {name: sums for name, sums in products.found.items() if name is not None}


# Products that do not use the parameter as a matrix: one mixes kernels before a convolution uses them, one sums a table
# of positions over all of them.
OTHERWISE = {"CondConv2d.weight", "LambdaLayer.pos_emb"}


@pytest.mark.slow
@pytest.mark.parametrize(("library", "name"), every("transformers"))
def test_matrices_multiply_as_the_rule_reads_them_and_attach_takes_the_model(library, name, monkeypatch):
    """Measured: over how many entries the products in the forward pass sum."""
    torch.manual_seed(0)
    model = architectures.LIBRARIES[library]()[name]()
    sums = measured(copy.deepcopy(model), **inputs_of(name, model))
    assert len(sums) > 4
    scales = {got.name: got for got in scale_table(model)}
    assert {key: summed for key, summed in sums.items() if summed != {scales[key].fan_in}} == {}
    matrices = [
        key for key, got in scales.items() if got.rule != "table" and re.search("Experts|Router|Conv1D", got.kind)
    ]
    assert {key for key in matrices if not key.endswith("bias")} <= sums.keys()
    takes(model, scales)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "gpt_oss", "llama4_text", "aria_text", "xlnet", "convbert"])
def test_control_the_measurement_finds_a_matrix_that_is_read_the_wrong_way(name, monkeypatch):
    pytest.importorskip("transformers")
    model = architectures.LIBRARIES["transformers"]()[name]()
    sums = measured(model, **inputs_of(name, model))
    monkeypatch.setattr(scale, "BY_NAME", ())
    monkeypatch.setattr(scale, "_of_stack", lambda module, parameter: parameter.shape[-1])
    wrong = [got.kind for got in scale_table(model) if sums.get(got.name, {got.fan_in}) != {got.fan_in}]
    assert wrong != []


@pytest.mark.slow
@pytest.mark.parametrize(("library", "name"), every("timm"))
def test_models_of_timm_multiply_as_the_rule_reads_them_and_attach_takes_them(library, name):
    model = architectures.on_meta(architectures.LIBRARIES[library]()[name])
    if sum(p.numel() for p in model.parameters()) > 13e6:
        pytest.skip("large: its shapes are tested above")
    torch.manual_seed(0)
    model = architectures.LIBRARIES[library]()[name]()
    size = (3, 56, 56) if "dinov2" in name else model.default_cfg["input_size"]
    sums = measured(copy.deepcopy(model), positional=[torch.randn(1, *size)])
    scales = {got.name: got for got in scale_table(model)}
    wrong = {key: summed for key, summed in sums.items() if summed != {scales[key].fan_in}}
    assert {key for key in wrong if scales[key].kind not in OTHERWISE} == set()
    takes(model, scales)


def takes(model, scales):
    """`attach` with its defaults, and one step without a gradient."""
    before = {name: p.detach().clone() for name, p in canonical_parameters(model).items()}
    trained = {name for name, p in canonical_parameters(model).items() if p.requires_grad}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    lines, handle = guessed(lambda: attach(optimizer, model))
    unknown = {scales[name].kind for name in trained if not scales[name].known}
    assert len(lines) == bool(unknown)
    assert all(kind in lines[0] for kind in unknown)
    left = {name for name, got in scales.items() if got.std is None}
    assert handle.anchors.keys() == scales.keys() - left
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name in left & trained:
        assert torch.equal(model.get_parameter(name), before[name] * (1 - 0.1 * 0.5))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::syre.core.GuessedScale")
def test_a_scripted_model_is_one_too():
    """Its layers do not say what they are: a matrix has its last dimension, and a bias that of its matrix."""
    plain = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))
    model = torch.jit.script(plain)
    handle = attach(torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1), model, sigma=1.0)
    drawn = draw_anchors(plain, sigma=1.0, seed=0)
    assert {name: torch.equal(b, drawn[name]) for name, b in handle.anchors.items()} == dict.fromkeys(drawn, True)
