"""The GPT: a token sees none after it; its attention, its start, and what its heads are made of."""

import warnings

import pytest
import torch
from torch import nn

from syre.batches import Batches
from syre.core import draw_anchors
from syre.core.scale import GuessedScale
from syre.data import Dataset
from syre.learners import Ensemble, Learner, Replica, Single, learner
from syre.models import GPT
from syre.models.gpt import CausalAttention, GPTModule, attention_pairs
from syre.optim import SGD
from syre.regularizers import L2Init, SigmaAsym, Syre, Vanilla, WeightDecay
from syre.seeding import generator
from syre.tasks import Language

torch.set_num_threads(1)
VOCABULARY, CONTEXT = 11, 6
SMALL = GPT(width=8, depth=3, heads=2)


def module_of(spec: GPT = SMALL, seed: int = 0) -> GPTModule:
    """No parameter is 0, as the biases are at the start."""
    torch.manual_seed(seed)
    module = spec.build((CONTEXT,), VOCABULARY).double()
    for weight in module.parameters():
        nn.init.normal_(weight, std=0.5)
    return module


def text(count: int = 5, context: int = CONTEXT) -> torch.Tensor:
    return torch.randint(VOCABULARY, (count, context), generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("at", range(CONTEXT))
def test_a_later_token_changes_no_earlier_output(at):
    module, x = module_of(), text()
    other = x.clone()
    other[:, at] = (other[:, at] + 1) % VOCABULARY
    mine, its = module(x), module(other)
    assert torch.equal(mine[:, :at], its[:, :at])
    assert ((mine[:, at:] - its[:, at:]).abs().amax(-1) > 1e-6).all()  # control: it and all after it do change


def test_the_features_are_the_residual_stream_of_which_the_last_gives_the_logits():
    module, x = module_of(), text()
    logits, stream = module(x, features=True)
    assert (logits.shape, stream.shape) == ((5, CONTEXT, VOCABULARY), (5, 3, CONTEXT, 8))
    torch.testing.assert_close(module.head(module.norm(stream[:, -1])), logits, rtol=0, atol=0)
    torch.testing.assert_close(module.blocks[1](stream[:, 0]), stream[:, 1], rtol=0, atol=0)
    torch.testing.assert_close(module(x), logits, rtol=0, atol=0)


def test_fewer_tokens_than_the_context_are_the_first_ones_of_it():
    module, x = module_of(), text()
    torch.testing.assert_close(module(x[:, :4]), module(x)[:, :4], rtol=0, atol=1e-12)


def test_its_attention_is_that_of_torch():
    torch.manual_seed(0)
    mine, theirs = CausalAttention(8, 2).double(), nn.MultiheadAttention(8, 2, batch_first=True).double()
    with torch.no_grad():
        for its, own in (
            (theirs.in_proj_weight, mine.qkv.weight),
            (theirs.in_proj_bias, mine.qkv.bias.normal_()),
            (theirs.out_proj.weight, mine.out.weight),
            (theirs.out_proj.bias, mine.out.bias.normal_()),
        ):
            its.copy_(own)
    x = torch.randn(3, CONTEXT, 8, dtype=torch.float64)
    later = torch.ones(CONTEXT, CONTEXT, dtype=torch.bool).triu(1)
    torch.testing.assert_close(mine(x), theirs(x, x, x, attn_mask=later)[0], rtol=0, atol=1e-12)
    assert (mine(x) - theirs(x, x, x)[0]).abs().max() > 1e-3  # control: without the mask


def test_a_pair_of_a_head_is_all_that_attention_sees_of_it():
    """Without biases the scores are x W_Q^T W_K x, and each head adds W_O W_V of what it attends to."""
    module = module_of()
    stacked = {name: weight.detach().unsqueeze(0) for name, weight in module.named_parameters()}
    pairs, attention = attention_pairs(stacked, 2), module.blocks[1].attention
    with torch.no_grad():
        attention.qkv.bias.zero_()
        attention.out.bias.zero_()
    x = torch.randn(1, CONTEXT, 8, dtype=torch.float64)
    added = torch.zeros_like(x)
    for head in range(2):
        query_key, output_value = (a[0, 1, head].mT @ b[0, 1, head] for a, b in pairs.values())
        scores = (x @ query_key @ x.mT) / 4**0.5
        later = torch.ones(CONTEXT, CONTEXT, dtype=torch.bool).triu(1)
        added += scores.masked_fill(later, -torch.inf).softmax(-1) @ x @ output_value.mT
    assert pairs["query_key"][0].shape == pairs["output_value"][1].shape == (1, 3, 2, 4, 8)
    torch.testing.assert_close(attention(x), added, rtol=0, atol=1e-12)


def test_it_starts_as_gpt_2_does():
    torch.manual_seed(0)
    module = GPT().build((128,), 256)
    assert sum(weight.numel() for weight in module.parameters()) == 875_264
    for name, weight in module.named_parameters():
        if weight.dim() == 1:
            assert (weight == float("norm" in name and name.endswith("weight"))).all(), name
            continue
        std = 0.02 / 8**0.5 if name.endswith(("attention.out.weight", "mlp.2.weight")) else 0.02
        assert abs(weight.std() / std - 1) < 4 / (2 * weight.numel()) ** 0.5, name
    assert not torch.equal(module.head.weight, module.tokens.weight)


def test_anchors_cover_every_parameter_at_the_scale_of_its_fan_in():
    module = GPT(width=64, depth=1, heads=2).build((32,), 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error", GuessedScale)
        anchors = draw_anchors(module, sigma=1.0, seed=0)
    assert {n: a.shape for n, a in anchors.items()} == {n: w.shape for n, w in module.named_parameters()}
    for name, anchor in anchors.items():
        expected = (256 if "mlp.2" in name else 64) ** -0.5
        spread = anchor.square().mean().sqrt() / expected
        assert abs(spread - 1) < 4 / (2 * anchor.numel()) ** 0.5, name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 3}, "model.width must be a multiple of model.heads=3, got 8"),
        ({"heads": 0}, "model.heads must be an integer > 0, got 0"),
        ({"depth": 0}, "model.depth must be an integer > 0, got 0"),
        ({"width": -8}, "model.width must be an integer > 0, got -8"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        GPT(**{"width": 8, "heads": 2} | settings)


def test_images_are_refused():
    with pytest.raises(ValueError, match=r"takes tokens \[context\], not inputs of shape \(1, 8, 8\)"):
        SMALL.build((1, 8, 8), 10)


# ---- as a run --------------------------------------------------------------------------------------------------------

TEXT = Dataset.of((text(24), text(24).roll(-1, 1)), (text(12), text(12).roll(-1, 1)), num_classes=VOCABULARY)


def team_of(regularizers: list, seeds: list[int] | None = None) -> tuple[Learner, Batches]:
    """Not by Adam: the gradient of a key's bias is 0 (a softmax does not see it), and Adam steps along its rounding."""
    replicas, seeds = [], seeds or [*range(len(regularizers))]
    for seed, regularizer in zip(seeds, regularizers, strict=True):
        module = module_of(seed=seed)
        regularizer.prepare(module, seed)
        optimizer = SGD(lr=0.05, momentum=0.9).build(module, regularizer.weight_decay)
        handle = regularizer.attach(optimizer, module, seed)
        replicas.append(Replica(model=module, optimizer=optimizer, handle=handle, noise=generator(seed, "noise")))
    batches = Batches([TEXT] * len(seeds), scales=[1.0] * len(seeds), seeds=seeds, batch_size=8)
    return learner(replicas), batches


def losses(team: Learner, batches: Batches, steps: int = 4) -> torch.Tensor:
    return torch.stack([team.step(Language().loss, batches.train(k), lr_factor=1.0, clip=None) for k in range(steps)])


GELU = [Vanilla(), WeightDecay(weight_decay=0.02), Syre(weight_decay=0.05, sigma=0.7), L2Init(weight_decay=0.04)]


@pytest.mark.parametrize("regularizers", [GELU, [SigmaAsym(), SigmaAsym(weight_decay=0.3)]], ids=["gelu", "figlu"])
def test_a_replica_is_the_run_trained_alone(regularizers):
    team, batches = team_of(regularizers)
    assert isinstance(team, Ensemble)
    together = losses(team, batches)
    measured = Language(windows=4).evaluate(team, batches, final=True)
    for k, regularizer in enumerate(regularizers):
        alone, its_batches = team_of([regularizer], seeds=[k])
        assert isinstance(alone, Single)
        torch.testing.assert_close(losses(alone, its_batches)[:, 0], together[:, k], rtol=0, atol=1e-10)
        for name, weight in alone.parameters().items():
            torch.testing.assert_close(team.parameters()[name][k], weight[0], rtol=0, atol=1e-10)
        for name, value in Language(windows=4).evaluate(alone, its_batches, final=True).items():
            torch.testing.assert_close(measured[name][k : k + 1], value, rtol=1e-8, atol=1e-8)
    assert ((together[-1] - together[-1].roll(1)).abs() > 1e-6).all()  # control: they are different runs
