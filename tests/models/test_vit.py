"""The vision transformer: torchvision's forward pass, its symmetries and what breaks them, and runs that resume."""

from copy import deepcopy
from itertools import pairwise

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from syre.batches import Batches
from syre.core import draw_anchors
from syre.data import Dataset
from syre.learners import Ensemble, Learner, Replica, Single, learner
from syre.models import Dropout, ViT
from syre.models.vit import ViTModule
from syre.optim import SGD
from syre.regularizers import Dropout as DropoutRegularizer
from syre.regularizers import L2Init, SigmaAsym, Syre, SyreAdvanced, Vanilla, WAsym, WeightDecay, WFix
from syre.seeding import generator
from syre.tasks import Classification
from syre.trainer import Record, Snapshot, Training, train

torch.set_num_threads(1)
SMALL = ViT(patch=4, dim=8, depth=2, heads=2, mlp=6)
MATRICES = 1 + 2 * 4 + 1  # patches, four a block, the last layer


def module_of(spec: ViT = SMALL, channels: int = 3, seed: int = 0) -> ViTModule:
    """No parameter is 0, as torchvision's last layer is at the start."""
    torch.manual_seed(seed)
    module = spec.build((channels, 8, 8), 5).double()
    for weight in module.parameters():
        nn.init.normal_(weight, std=0.5)
    return module


def images(count: int = 6, channels: int = 3) -> torch.Tensor:
    stream = torch.Generator().manual_seed(7)
    return torch.randn(count, channels, 8, 8, generator=stream, dtype=torch.float64)


# ---- the network -----------------------------------------------------------------------------------------------------


def torchvisions(module: ViTModule) -> VisionTransformer:
    theirs = VisionTransformer(8, 4, 2, 2, 8, 6, num_classes=5).double()
    theirs.load_state_dict({name.removeprefix("vit."): weight for name, weight in module.named_parameters()})
    return theirs


@pytest.mark.parametrize("training", [True, False])
def test_it_is_torchvisions_vision_transformer(training):
    module, x = module_of().train(training), images()
    theirs = torchvisions(module).train(training)
    torch.testing.assert_close(module(x), theirs(x), rtol=0, atol=1e-12)
    with torch.no_grad():  # control
        module.vit.class_token[..., 0].add_(1e-6)
    assert (module(x) - theirs(x)).abs().max() > 1e-10


def test_it_starts_as_torchvisions_does():
    torch.manual_seed(0)
    module = SMALL.build((3, 8, 8), 5)
    torch.manual_seed(0)
    theirs = dict(VisionTransformer(8, 4, 2, 2, 8, 6, num_classes=5).named_parameters())
    mine = {name.removeprefix("vit."): weight for name, weight in module.named_parameters()}
    assert list(mine) == list(theirs)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_the_features_are_what_the_last_layer_takes():
    module, x = module_of(), images()
    logits, features = module(x, features=True)
    assert features.shape == (6, 8)
    torch.testing.assert_close(module.heads.head(features), logits)
    torch.testing.assert_close(module(x), logits, rtol=0, atol=0)


def test_the_default_is_that_of_the_paper():
    module = ViT().build((3, 32, 32), 10)
    shapes = {tuple(weight.shape) for name, weight in module.named_parameters() if "layer_5" in name}
    assert module.vit.encoder.pos_embedding.shape == (1, 65, 512)
    assert shapes == {(512,), (1536, 512), (1536,), (512, 512)}


def test_images_of_one_channel_start_at_the_same_scale():
    torch.manual_seed(0)
    kernel = ViT(patch=8, dim=512, depth=1).build((1, 32, 32), 10).vit.conv_proj.weight
    assert kernel.shape == (512, 1, 8, 8)
    assert abs(kernel.std() * 8 - 1) < 0.05
    assert module_of(channels=1)(images(channels=1)).shape == (6, 5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 3}, "model.dim must be a multiple of model.heads=3, got 8"),
        ({"depth": 0}, "model.depth must be an integer > 0, got 0"),
        ({"patch": 0}, "model.patch must be"),
        ({"dim": -8}, "model.dim must be"),
        ({"mlp": 0}, "model.mlp must be"),
        ({"heads": 0}, "model.heads must be"),
        ({"dropout": 1.0}, r"model.dropout must be a fraction in \[0, 1\)"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        ViT(**{"dim": 8, "heads": 2} | settings)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((64,), "takes square images"),
        ((3, 8, 12), r"takes square images .*, not inputs of shape \(3, 8, 12\)"),
        ((3, 10, 10), "model.patch must divide the image size 10, got 4"),
    ],
)
def test_images_that_do_not_fit_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        SMALL.build(shape, 5)


# ---- its symmetries, and what breaks them ----------------------------------------------------------------------------


@torch.no_grad()
def permuted(module: ViTModule) -> ViTModule:
    """The hidden units of the first MLP block in another order."""
    other = deepcopy(module)
    first, last = (other.vit.encoder.layers[0].mlp[i] for i in (0, 3))
    order = torch.tensor([2, 0, 1, 5, 3, 4])
    for tensor in (first.weight, first.bias):
        tensor.copy_(tensor[order])
    last.weight.copy_(last.weight[:, order])
    return other


@torch.no_grad()
def rotated(module: ViTModule) -> ViTModule:
    """Queries and keys of the first head of the first block, both rotated."""
    other = deepcopy(module)
    attention = other.vit.encoder.layers[0].self_attention
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    for start in (0, 8):
        for tensor in (attention.in_proj_weight, attention.in_proj_bias):
            tensor[start : start + 4] = rotation @ tensor[start : start + 4]
    return other


def difference(mine: ViTModule, its: ViTModule) -> float:
    return float((mine(images()) - its(images())).detach().abs().max())


def test_the_order_of_mlp_units_is_a_symmetry_that_sigma_asym_breaks():
    module = module_of()
    assert difference(module, permuted(module)) < 1e-12
    SigmaAsym().prepare(module, 0)
    assert difference(module, permuted(module)) > 1e-3


def test_a_rotation_of_queries_and_keys_is_a_symmetry_that_sigma_asym_leaves():
    module = module_of()
    for prepare in (Vanilla(), SigmaAsym()):
        prepare.prepare(module, 0)
        assert difference(module, rotated(module)) < 1e-12


@pytest.mark.parametrize("move", [permuted, rotated])
def test_weight_decay_keeps_both_symmetries_and_the_anchored_decay_neither(move):
    module = module_of()
    other, anchors = move(module), draw_anchors(module, sigma=1.0, seed=0)

    def decay(of: ViTModule, centre: float) -> float:
        return float(sum((w - centre * anchors[name]).square().sum() for name, w in of.named_parameters()).detach())

    assert abs(decay(module, 0) - decay(other, 0)) < 1e-9
    assert abs(decay(module, 1) - decay(other, 1)) > 1e-2


def test_anchors_cover_every_parameter_at_the_scale_of_its_fan_in():
    module = ViT(patch=8, dim=64, depth=1, heads=2, mlp=96).build((3, 32, 32), 10)
    anchors = draw_anchors(module, sigma=1.0, seed=0)
    assert {name: anchor.shape for name, anchor in anchors.items()} == {
        name: weight.shape for name, weight in module.named_parameters()
    }
    fan_in = {"conv_proj": 3 * 64, "mlp.3": 96}  # all others: the width of a token
    for name, anchor in anchors.items():
        expected = next((size for part, size in fan_in.items() if part in name), 64) ** -0.5
        spread = anchor.square().mean().sqrt() / expected
        assert abs(spread - 1) < 4 / (2 * anchor.numel()) ** 0.5, name


def test_w_fix_and_w_asym_freeze_the_matrices_of_attention_too_but_no_token():
    module = module_of()
    frozen = WFix(fraction=0.25, kappa=0.5).frozen(module, 0)
    listed = WAsym(fixed=[2] * MATRICES, kappa=[0.5] * MATRICES).frozen(module, 0)
    assert (
        list(frozen)
        == list(listed)
        == [n for n, p in module.named_parameters() if n.endswith("weight") and p.dim() > 1]
    )
    assert {name.split(".")[-1] for name in frozen} == {"weight", "in_proj_weight"}
    assert all((mask.flatten(1).sum(1) == round(mask[0].numel() / 4)).all() for mask, _ in frozen.values())
    with pytest.raises(ValueError, match=f"each of the {MATRICES} weight matrices"):
        WAsym(fixed=[2], kappa=[0.5]).frozen(module, 0)


# ---- dropout ---------------------------------------------------------------------------------------------------------


def test_no_dropout_draws_from_the_global_stream():
    module = ViT(dim=8, depth=2, heads=2, mlp=6, dropout=0.25).build((3, 8, 8), 5)
    assert not [m for m in module.modules() if isinstance(m, nn.Dropout) and m.p > 0]
    places = [m for m in module.modules() if isinstance(m, Dropout)]
    assert [m.features for m in places] == [(5, 8), *[(5, 8), (5, 6), (5, 8)] * 2]
    assert all(float(m.rate) == 0.25 for m in places)
    DropoutRegularizer(rate=0.5).prepare(module, 0)
    assert all(float(m.rate) == 0.5 for m in places)


def test_dropout_drops_where_torchvisions_does():
    """With each mask given to both: the noise drawn for one is what the other's dropout sees."""
    module = module_of(ViT(dim=8, depth=2, heads=2, mlp=6, dropout=0.25)).train()
    theirs, stream, x = torchvisions(module).train(), generator(0, "noise"), images()
    mine = {name.removeprefix("vit."): m for name, m in module.named_modules() if isinstance(m, Dropout)}
    for name, place in mine.items():
        place.noise = place.draw(len(x), stream)
        masked = theirs.get_submodule(name)
        masked.forward = lambda x, noise=place.noise: x * (noise >= 0.25) / 0.75
    torch.testing.assert_close(module(x), theirs(x), rtol=0, atol=1e-12)
    assert (module(x) - torchvisions(module).train()(x)).abs().max() > 1e-3  # control: dropout 0


# ---- as a run --------------------------------------------------------------------------------------------------------

SETTINGS = Training(steps=10, batch_size=8, evaluations=2, checkpoints=1)
TASK = Classification()
PICTURES = Dataset.of((images(24), torch.arange(24) % 5), (images(12), torch.arange(12) % 5), num_classes=5)


def team_of(regularizers: list, model: ViT = SMALL, seeds: list[int] | None = None) -> tuple[Learner, Batches]:
    """Run k has the k-th regularizer and seed.

    Not by Adam: the gradient of a key's bias is 0 (a softmax does not see it), and Adam would step along its rounding.
    """
    replicas, seeds = [], seeds or [*range(len(regularizers))]
    for seed, regularizer in zip(seeds, regularizers, strict=True):
        module = module_of(model, seed=seed)
        regularizer.prepare(module, seed)
        optimizer = SGD(lr=0.05, momentum=0.9).build(module, regularizer.weight_decay)
        handle = regularizer.attach(optimizer, module, seed)
        replicas.append(Replica(model=module, optimizer=optimizer, handle=handle, noise=generator(seed, "noise")))
    batches = Batches([PICTURES] * len(seeds), scales=[1.0] * len(seeds), seeds=seeds, batch_size=8)
    return learner(replicas), batches


def losses(team: Learner, batches: Batches, steps: int = 3) -> torch.Tensor:
    return torch.cat([team.step(TASK.loss, batches.train(k), lr_factor=1.0, clip=None) for k in range(steps)])


def test_noise_comes_from_the_generator_of_the_run_alone():
    dropped = ViT(dim=8, depth=2, heads=2, mlp=6, dropout=0.25)
    first = losses(*team_of([Vanilla()], dropped))
    torch.rand(17)  # the global stream moves on
    assert torch.equal(losses(*team_of([Vanilla()], dropped)), first)
    other, batches = team_of([Vanilla()], dropped)
    other.replicas[0].noise.manual_seed(1)
    assert (losses(other, batches) != first).all()


@pytest.mark.parametrize("regularizer", [Syre(weight_decay=0.1, sigma=1.0), SigmaAsym(), WFix(fraction=0.2, kappa=0.3)])
def test_a_run_resumes_bit_for_bit(regularizer):
    dropped = ViT(dim=8, depth=2, heads=2, mlp=6, dropout=0.25)
    team, batches = team_of([regularizer], dropped)
    events = []
    for event in train(team, TASK, batches, SETTINGS):
        events.append(deepcopy(event) if isinstance(event, Snapshot) else event)
    snapshot = next(event for event in events if isinstance(event, Snapshot))
    assert (snapshot.step, snapshot.total) == (5, 10)
    again, its_batches = team_of([regularizer], dropped, seeds=[0])
    rest = [e for e in train(again, TASK, its_batches, SETTINGS, resume=snapshot.state) if isinstance(e, Record)]
    for mine, its in zip(events[-len(rest) :], rest, strict=True):
        assert all(torch.equal(mine.values[name], its.values[name]) for name in mine.values)
    for name, weight in team.parameters().items():
        assert torch.equal(weight, again.parameters()[name])
    forgetful = snapshot.state["learner"] | {"noise": generator(1, "noise").get_state()}  # control
    other, its_batches = team_of([regularizer], dropped, seeds=[0])
    [*train(other, TASK, its_batches, SETTINGS, resume=snapshot.state | {"learner": forgetful})]
    assert any((weight != team.parameters()[name]).any() for name, weight in other.parameters().items())


GELU = [Vanilla(), WeightDecay(weight_decay=0.02), Syre(weight_decay=0.05, sigma=0.7), L2Init(weight_decay=0.04)]
GELU += [SyreAdvanced(weight_decay=0.03, sigma=0.3, sigma_d=0.2), DropoutRegularizer(rate=0.3), WFix(fraction=0.2)]
FIGLU = [SigmaAsym(weight_decay=0.02), SigmaAsym(weight_decay=0.3)]


@pytest.mark.parametrize("regularizers", [GELU, FIGLU], ids=["gelu", "figlu"])
def test_a_replica_is_the_run_trained_alone(regularizers):
    team, batches = team_of(regularizers)
    assert isinstance(team, Ensemble)
    together = [event for event in train(team, TASK, batches, SETTINGS) if isinstance(event, Record)]
    for k, regularizer in enumerate(regularizers):
        alone, its_batches = team_of([regularizer], seeds=[k])
        assert isinstance(alone, Single)
        records = [event for event in train(alone, TASK, its_batches, SETTINGS) if isinstance(event, Record)]
        for name, weight in alone.parameters().items():
            torch.testing.assert_close(team.parameters()[name][k], weight[0], rtol=0, atol=1e-10)
        torch.testing.assert_close(together[-1].values["loss"][k], records[-1].values["loss"][0], rtol=0, atol=1e-8)
    assert all((a - b).abs().max() > 1e-3 for a, b in pairwise(team.flat))  # control: they are different runs


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_noise_is_drawn_on_the_device_of_the_generator():
    stream = generator(0, "noise", device="cuda")
    first, state = Dropout(5, 8).draw(3, stream), stream.get_state()
    assert first.device.type == "cuda"
    second = Dropout(5, 8).draw(3, stream)
    stream.set_state(state)
    assert torch.equal(Dropout(5, 8).draw(3, stream), second)
    assert not torch.equal(first, second)
