"""The features of layers: values where they are known, every layout of layers and batches, and nothing left behind."""

import copy
import random
import warnings
from collections import UserDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from syre.diagnostics import features
from syre.diagnostics.features import measure

NUMBERS = {"rank", "rank/effective", "rank/stable", "full", "dead", "duplicates", "low", "eigenvalues"}


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=stream(seed))


def two_layers(first: torch.Tensor, activation: nn.Module, bias: torch.Tensor | None = None) -> nn.Sequential:
    """The features that layer 2 reads are activation(x first^T + bias)."""
    model = nn.Sequential(nn.Linear(first.shape[1], first.shape[0]), activation, nn.Linear(first.shape[0], 3))
    with torch.no_grad():
        model[0].weight.copy_(first)
        model[0].bias.copy_(torch.zeros(len(first)) if bias is None else bias)
    return model


def only(model: nn.Module, batches: object, **options: int) -> dict:
    (entry,) = measure(model, batches, **options)
    return entry


def names(model: nn.Module, batches: object) -> list[str]:
    return [entry["name"] for entry in measure(model, batches)]


# ---- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "rank"), [(12, 3), (12, 12), (40, 5)])
@pytest.mark.parametrize("samples", [200, 30])  # more and fewer than units: either of the two products
def test_ranks_are_those_of_the_matrix(width, rank, samples):
    x = rand(samples, rank)
    first = torch.linalg.qr(rand(max(width, rank), rank, seed=1)).Q[:width]
    entry = only(two_layers(first, nn.Identity(), bias=torch.ones(width)), x)
    assert (entry["width"], entry["samples"], entry["full"]) == (width, samples, min(width, samples - 1))
    assert entry["rank"] == rank
    centred = x.double() - x.double().mean(0)
    singular = torch.linalg.svdvals(centred)  # columns of `first` are orthonormal
    p = singular / singular.sum()
    assert entry["rank/effective"] == pytest.approx(float((-p * p.log()).sum().exp()), rel=1e-4)
    assert entry["rank/stable"] == pytest.approx(float((singular / singular[0]).square().sum()), rel=1e-5)
    shown = (singular / singular[0]).square().tolist()
    assert entry["eigenvalues"][:rank] == pytest.approx(shown, rel=1e-4)
    assert max([0.0, *entry["eigenvalues"][rank:]]) < 1e-9
    assert entry["low"] == pytest.approx(1 - rank / entry["full"])
    assert entry["dead"] == 0


def test_constant_features_have_rank_0_and_are_no_duplicates():
    entry = only(two_layers(torch.zeros(6, 4), nn.Identity(), bias=torch.ones(6)), rand(50, 4))
    assert [entry[name] for name in ("rank", "rank/effective", "rank/stable", "low")] == [0, 0, 0, 1]
    assert (entry["dead"], entry["duplicates"], entry["eigenvalues"]) == (0, 0, [0.0] * 6)


def test_dead_units_are_those_that_are_0_on_every_sample_that_passes():
    first = rand(10, 4)
    bias = torch.zeros(10)
    bias[[2, 5, 6]] = -100.0
    x = rand(500, 4)
    assert only(two_layers(first, nn.ReLU(), bias), x)["dead"] == 3
    first[1] = torch.tensor([1.0, 0, 0, 0])
    bias[1], x[:, 0] = -50.0, x[:, 0].clamp(max=10)
    assert only(two_layers(first, nn.ReLU(), bias), x)["dead"] == 4
    x[123, 0] = 60.0  # one sample in 500, of which 16 are kept
    assert only(two_layers(first, nn.ReLU(), bias), x, rows=16)["dead"] == 3
    first, tiny = rand(10, 4), rand(10, 4)
    tiny[3] = 1e-12
    assert only(two_layers(first, nn.Tanh()), x)["dead"] == 0
    assert only(two_layers(tiny, nn.Tanh()), x)["dead"] == 1  # below the rounding of the others


def test_duplicates_are_equal_up_to_sign_and_scale_and_nothing_else():
    first, x = rand(8, 5), rand(300, 5, seed=2)
    assert only(two_layers(first, nn.Tanh()), x)["duplicates"] == 0
    first[4], first[6] = first[1], -first[2]
    assert only(two_layers(first, nn.Tanh()), x)["duplicates"] == 4
    scaled = rand(8, 5)
    scaled[7] = 3 * scaled[0]
    assert only(two_layers(scaled, nn.ReLU()), x)["duplicates"] == 2
    assert only(two_layers(scaled, nn.Tanh()), x)["duplicates"] == 0  # of tanh, that is another function
    flat = two_layers(1e-3 * rand(8, 5), nn.Sigmoid())  # all near 1/2, and differently so
    assert only(flat, x)["duplicates"] == 0


def test_sparse_units_on_few_samples_are_no_duplicates():
    assert only(two_layers(rand(200, 5), nn.ReLU()), rand(4, 5))["duplicates"] == 0


def test_more_units_than_one_block_of_them():
    first = rand(1500, 20)
    first[1400] = first[3]
    assert only(two_layers(first, nn.Tanh()), rand(64, 20))["duplicates"] == 2


def test_features_that_are_not_finite_have_no_numbers_and_the_others_do():
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Linear(5, 2))
    with torch.no_grad():
        model[2].bias[1] = float("inf")
    fine, bad = measure(model, rand(20, 4))
    assert fine["rank"] == 6
    assert {name for name, value in bad.items() if value is None} == NUMBERS
    assert (bad["name"], bad["width"], bad["samples"]) == ("3", 5, 20)


def test_half_precision_counts_what_is_above_its_rounding():
    model = two_layers(torch.linalg.qr(rand(16, 16)).Q[:, :3], nn.Identity()).bfloat16()
    assert only(model, rand(400, 3).bfloat16())["rank"] == 3


def test_all_is_plain_and_the_eigenvalues_are_few():
    entry = only(two_layers(rand(200, 50), nn.ReLU()), rand(300, 50))
    assert {type(value) for value in entry.values()} == {str, list, int, float}
    assert len(entry["eigenvalues"]) == 64
    assert {type(value) for value in entry["eigenvalues"]} == {float}
    assert entry["eigenvalues"][0] == 1
    assert sorted(entry["eigenvalues"], reverse=True) == entry["eigenvalues"]


# ---- which layers ----------------------------------------------------------------------------------------------------


class Attention(nn.Module):
    """q, k and v read the same; the head reads the first token alone."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.token = nn.Embedding(11, 8), nn.Parameter(torch.randn(1, 1, 8))
        self.norm = nn.LayerNorm(8)
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))
        self.up, self.down = nn.Parameter(torch.randn(8, 16)), nn.Parameter(torch.randn(16, 8))
        self.head = nn.Linear(8, 11, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.token.expand(len(ids), -1, -1), self.embed(ids)], 1)
        h = self.norm(x)
        q, k, v = (layer(h).unflatten(-1, (2, 4)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        x = x + torch.relu(x @ self.up) @ self.down
        return self.head(x[:, 0])


def test_an_attention_is_read_layer_by_layer_and_what_is_read_thrice_is_one_entry():
    entries = measure(Attention(), torch.randint(11, (6, 5), generator=stream()))
    assert [(e["name"], e["read_by"], e["width"], e["samples"]) for e in entries] == [
        ("q", ["q", "k", "v"], 8, 36),
        ("out", ["out"], 8, 36),
        ("up", ["up"], 8, 36),
        ("down", ["down"], 16, 36),
        ("head", ["head"], 8, 6),
    ]


def test_a_tied_head_goes_by_its_own_name():
    model = Attention()
    model.head.weight = model.embed.weight
    assert names(model, torch.randint(11, (6, 5), generator=stream()))[-1] == "head"


class Stem(nn.Module):
    """Convolutions; the same ReLU in place twice; the input is read by two."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.side = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 6, 1)
        self.norm, self.relu = nn.BatchNorm2d(6), nn.ReLU(inplace=True)
        self.two, self.head = nn.Conv2d(6, 4, 3, stride=2, groups=2), nn.Linear(4, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        image = image / 2
        x = self.relu(self.norm(self.one(image)) + self.side(image))
        return self.head(self.relu(self.two(x)).mean((2, 3)))


def test_images_are_rows_times_positions_and_the_batch_itself_is_no_feature():
    model, x = Stem().eval(), rand(7, 3, 8, 8)
    two, head = measure(model, x)
    assert [(e["name"], e["width"], e["samples"]) for e in (two, head)] == [("two", 6, 448), ("head", 4, 7)]
    with torch.no_grad():
        h = torch.relu(model.norm(model.one(x / 2)) + model.side(x / 2)).movedim(1, -1).reshape(-1, 6).double()
    expected = torch.linalg.svdvals(h - h.mean(0))
    assert two["rank/stable"] == pytest.approx(float((expected / expected[0]).square().sum()), rel=1e-4)


def test_all_layouts_of_layers():
    x = rand(6, 5, 4)
    fast = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 2)  # a kernel in eval mode
    block = ["self_attn.out_proj", "linear1", "linear2"]
    blocks = [*(f"layers.0.{n}" for n in block), "layers.1.self_attn.in_proj_weight", *(f"layers.1.{n}" for n in block)]
    assert names(fast, x) == [*blocks, "output"]
    assert names(nn.LSTM(4, 3, 2), x) == ["weight_ih_l1", "output"]
    assert names(nn.GRU(4, 3), x) == ["weight_hh_l0", "output"]  # step by step, here
    bags = nn.Sequential(nn.EmbeddingBag(11, 6), nn.Linear(6, 2))
    assert names(bags, torch.randint(11, (8, 4), generator=stream())) == ["1"]
    cross = nn.MultiheadAttention(4, 2, kdim=3, vdim=3, batch_first=True)
    assert names(cross, ((x, rand(6, 7, 3), rand(6, 7, 3)), "no targets")) == ["out_proj"]
    decoder = nn.Sequential(nn.Linear(4, 6), nn.Unflatten(-1, (6, 1)), nn.ConvTranspose1d(6, 3, 2), nn.Flatten())
    assert names(decoder, x[0]) == ["2"]

    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 6), nn.Parameter(torch.randn(3, 6, 5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.einsum("bd,edh->beh", self.first(x), self.second)

    assert [(e["name"], e["width"]) for e in measure(Experts(), x[0])] == [("second", 6)]


def test_weights_that_are_made_of_parameters_have_the_name_of_their_layer():
    model = nn.Sequential(nn.Linear(4, 6), nn.utils.parametrizations.weight_norm(nn.Linear(6, 5)), nn.Linear(5, 2))
    nn.utils.parametrizations.orthogonal(model[2])
    assert names(model, rand(20, 4)) == ["1", "2"]


def test_an_encoder_has_its_output_and_a_product_is_none():
    encoder = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
    assert names(encoder, rand(20, 4)) == ["output"]
    assert names(nn.Sequential(encoder, nn.Linear(6, 2), nn.LogSoftmax(-1)), rand(20, 4)) == ["1"]
    assert names(nn.Linear(4, 6), rand(20, 4)) == []
    assert names(nn.Flatten(), rand(20, 4)) == []


def test_what_is_written_into_a_part_of_a_tensor_is_seen():
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 6), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            held = torch.zeros(len(x), 8)
            held[:, :6] = self.first(x)
            return self.second(held)

    assert only(Padded(), rand(20, 4))["dead"] == 2


def test_wrapped_models_have_the_names_of_the_plain_one():
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    expected = measure(model, rand(20, 4))
    compiled = torch.compile(model, backend="eager")
    compiled(rand(20, 4))
    assert measure(compiled, rand(20, 4)) == expected
    assert measure(nn.DataParallel(model), rand(20, 4)) == expected
    inplace = copy.deepcopy(model)
    inplace.compile(backend="eager")
    inplace(rand(20, 4))
    assert measure(inplace, rand(20, 4)) == expected


@pytest.mark.parametrize("wrap", [torch.jit.script, torch.fx.symbolic_trace])
def test_scripted_and_traced_models(wrap):
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        wrapped = wrap(model)
        assert measure(wrapped, rand(20, 4)) == measure(model, rand(20, 4))
    assert wrapped.training


def test_what_is_no_matrix_of_real_numbers_is_passed_over():
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both are new in torch
        ragged = torch.nested.nested_tensor([rand(3, 4), rand(2, 4)], layout=torch.jagged)
        assert measure(model, ragged) == []
        assert measure(model.to(torch.cfloat), rand(20, 4).to(torch.cfloat)) == []


def test_a_model_of_inference_mode():
    class Inferring(nn.Sequential):
        @torch.inference_mode()
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)

    assert names(Inferring(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)), rand(20, 4)) == ["2"]


# ---- batches ---------------------------------------------------------------------------------------------------------


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        assert labels is not None
        return {"loss": F.cross_entropy(self.layers(x), labels)}


def test_every_form_of_batches_gives_the_same():
    model, x, y = Named(), rand(24, 4), torch.arange(24) % 2
    batch = {"x": x, "labels": y}
    expected = measure(model, batch)
    assert expected[0]["name"] == "layers.2"
    halves = [{"x": part, "labels": y[:12]} for part in x.split(12)]
    loader = DataLoader([{"x": one, "labels": label} for one, label in zip(x, y, strict=True)], batch_size=8)
    for batches in (UserDict(batch), {**batch, "names": ["a"] * 24}, [batch], halves, iter(halves), loader):
        assert measure(model, batches)[0]["rank/stable"] == pytest.approx(expected[0]["rank/stable"], rel=1e-6)
    inner = measure(model.layers, x)
    whole = TensorDataset(x, y)
    for batches in ((x, y), [x, y, "more"], ((x,), y), [(x, y)], [(x, y), (x, y)][:1], DataLoader(whole, 24)):
        assert measure(model.layers, batches) == inner
    assert measure(model.layers, DataLoader(whole, batch_size=8))[0]["samples"] == 24


def test_samples_are_bounded_spread_over_the_batches_and_the_same_each_time():
    model = two_layers(torch.eye(3), nn.Identity())
    asked = []

    def batches():
        for index in range(100):
            asked.append(index)
            yield torch.full((10, 3), float(index)) + rand(10, 3, seed=index)

    entry = only(model, batches(), rows=64)
    assert entry["samples"] == 64
    assert len(asked) == 7  # 70 inputs
    assert only(model, batches(), rows=64) == entry
    layer = features._Layer("", 50, [])
    for index in range(20):
        layer.add(torch.full((2, 50, 1), float(index)))
    assert layer.kept.shape == (50, 1)
    assert layer.passed == 2000
    counts = torch.bincount(layer.kept.flatten().long(), minlength=20)
    assert counts.max() <= 8  # 2.5 each, if all are equally likely
    assert (counts > 0).sum() >= 15


def test_few_tokens_are_asked_for_where_each_layer_has_enough():
    def batches():
        yield torch.randint(11, (30, 9), generator=stream())
        raise AssertionError("one batch has enough rows")

    model = nn.Sequential(nn.Embedding(11, 8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    assert [entry["samples"] for entry in measure(model, batches(), rows=200)] == [200, 200]


@pytest.mark.parametrize(
    ("batches", "error", "words"),
    [
        (3, TypeError, "batches must be tensors, or tuples or dicts of them, got an int"),
        ("text", TypeError, "got a str"),
        (np.ones((3, 4)), TypeError, "got a ndarray"),
        (["a", "b"], TypeError, "a batch must be a tensor, or a tuple or dict of tensors, got a list of str"),
        ({"x": "a"}, TypeError, "got a dict of str"),
        ([{"x": [1.0]}], TypeError, "got a dict of list"),
        ([], ValueError, "batches are empty"),
        (iter([]), ValueError, "batches are empty"),
        (torch.zeros(0, 4), ValueError, "batches are empty"),
        (torch.zeros(3, 5), ValueError, r"the forward pass fails on a batch of \[3, 5\] float32: .*mat1 and mat2"),
        ({"image": torch.zeros(3, 4)}, ValueError, "the batch is a dict with image, and the forward pass takes input"),
    ],
)
def test_a_bad_batch_is_one_clear_line(batches, error, words):
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    with pytest.raises(error, match=words) as caught:
        measure(model, batches)
    assert "\n" not in str(caught.value)
    assert type(caught.value) is error


def test_no_model_is_one_clear_line():
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module"):
        measure(rand(3, 4), nn.Linear(4, 2))


# ---- nothing is left behind ------------------------------------------------------------------------------------------


class Restless(nn.Module):
    """Draws, counts in a buffer and replaces another one, in eval mode too; its `eval` would move weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 2))
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(3))
        self.fails = False

    def train(self, mode: bool = True) -> "Restless":
        raise AssertionError("train and eval of a module may have effects")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.last = x.mean(1)
        out = self.layers(x + torch.rand(1) + random.random() + np.random.rand())
        if self.fails:
            raise RuntimeError("on purpose")
        return out


def state(model: nn.Module) -> tuple:
    tensors = [*model.state_dict().values()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    flags = [module.training for module in model.modules()]
    drawn = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    settings = torch.is_grad_enabled(), torch.backends.mha.get_fastpath_enabled()
    return [t.tolist() for t in tensors], [*map(id, tensors)], hooks, flags, drawn, settings


@pytest.mark.parametrize("fails", [False, True])
def test_flags_buffers_random_states_and_hooks_are_as_they_were(fails):
    model = Restless()
    model.layers[1].training = model.layers[3].training = False
    model.fails = fails
    loader = DataLoader(TensorDataset(rand(40, 4)), batch_size=8, shuffle=True, generator=stream(5))
    before, drawn = state(model), loader.generator.get_state()
    objects = [*map(id, model.buffers())]
    if fails:
        with pytest.raises(ValueError, match="on purpose"):
            measure(model, loader)
    else:
        measure(model, loader)
    after = state(model)
    assert after[0] == before[0]
    assert after[2:] == before[2:]
    assert [*map(id, model.buffers())] == objects
    assert torch.equal(loader.generator.get_state(), drawn)
    model.fails = False
    model(rand(8, 4))  # control: it does move them
    assert model.calls == 1
    assert state(model)[4] != before[4]


def test_no_tensor_of_the_pass_outlives_it():
    import gc
    import weakref

    made = []

    class Spy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made.append(weakref.ref(x.untyped_storage()))
            return x.relu()

    measure(nn.Sequential(nn.Linear(4, 6), Spy(), nn.Linear(6, 2)), rand(5000, 4))
    gc.collect()
    assert [ref() for ref in made] == [None]
