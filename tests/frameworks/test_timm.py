"""timm: the optimizers of its own factory, its no-decay groups, Lookahead, its clipping and its checkpoints."""

import pytest
import timm
import torch
from theta import MICROBATCHES, SETTINGS, Net, differs, loader, same, train_theta, weights
from timm.optim import create_optimizer_v2
from timm.utils import CheckpointSaver, ModelEmaV3, dispatch_clip_grad
from torch.func import functional_call

import syre
from syre.core import draw_anchors

# Those whose rule torch has (the pull form), and others of every kind (the shift form).
TORCHS = ("sgd", "momentum", "adam", "adamw", "nadam", "radam", "radamw", "rmsprop", "adagrad", "adadelta", "adamax")
OTHERS = ("lamb", "lars", "larc", "lion", "adafactor", "adafactorbv", "adan", "adanw", "adopt", "adoptw", "adabelief",
          "adamp", "sgdp", "sgdw", "laprop", "mars", "madgrad", "novograd", "rmsproptf", "nadamw", "muon",
          "cadamw", "adamc")  # fmt: skip
NAMES = (*TORCHS, *OTHERS, "lookahead_adamw", "lookahead_momentum", "lookahead_lamb")
EPOCHS = 3  # Lookahead looks back every 6 steps


def factory(model, name="adamw"):
    return create_optimizer_v2(model, opt=name, lr=0.02, weight_decay=0.5)


def of(name="adamw"):
    """The same optimizer on theta: biases do not decay there either, as the factory's groups have it."""

    def make(named):
        groups = [[p for p in named.values() if p.ndim <= 1], [p for p in named.values() if p.ndim > 1]]
        decays = (0.0, 0.5)
        settings = [{"params": g, "weight_decay": d} for g, d in zip(groups, decays, strict=True)]
        return create_optimizer_v2(settings, opt=name, lr=0.02, weight_decay=0.5)

    return make


def train(model, optimizer, epochs=EPOCHS, *, accumulate=1, clip=None):
    """As timm's training script has it."""
    for _ in range(epochs):
        for index, batch in enumerate(loader()):
            (model(**batch)["loss"] / accumulate).backward()
            if (index + 1) % accumulate:
                continue
            if clip:
                clip(model.parameters())
            optimizer.step()
            optimizer.zero_grad()
    return weights(model)


def attached(name="adamw", seed=0):
    model = Net(seed)
    optimizer = factory(model, name)
    return model, optimizer, syre.attach(optimizer, model, **SETTINGS)


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_theta(name):
    model, optimizer, handle = attached(name)
    assert handle.form == ("pull" if name.split("_")[-1] in TORCHS else "shift")
    assert list(handle.anchors) == ["layers.0.weight", "layers.2.weight"]
    mine = train(model, optimizer)
    same(mine, train_theta(Net(), of(name), epochs=EPOCHS), tolerance=1e-8)
    differs(mine, train_theta(Net(), of(name), epochs=EPOCHS, sigma=0.0))


CLIPS = {mode: lambda parameters, mode=mode: dispatch_clip_grad(parameters, 0.1, mode) for mode in ("norm", "value")}


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("mode", CLIPS)
@pytest.mark.parametrize("name", ["momentum", "adamw", "lamb", "lookahead_adamw"])
def test_it_accumulates_and_clips(name, mode, accumulate):
    options = {"accumulate": accumulate, "clip": CLIPS[mode]}
    model, optimizer, _ = attached(name)
    mine = train(model, optimizer, **options)
    same(mine, train_theta(Net(), of(name), epochs=EPOCHS, **options), tolerance=1e-8)
    differs(mine, train_theta(Net(), of(name), epochs=EPOCHS))


def test_its_adaptive_clipping_compares_gradients_with_w():
    b = draw_anchors(Net(), **SETTINGS, parameters=["layers.0.weight", "layers.2.weight"])

    @torch.no_grad()
    def at_w(parameters):
        named = dict(zip(weights(Net()), parameters, strict=True))
        for sign in (1, -1):
            if sign < 0:
                dispatch_clip_grad(named.values(), 0.1, "agc")
            for name in b:
                named[name].add_(b[name], alpha=sign)

    def at_theta(parameters):
        dispatch_clip_grad(list(parameters), 0.1, "agc")

    model, optimizer, _ = attached("momentum")
    mine = train(model, optimizer, clip=at_theta)
    same(mine, train_theta(Net(), of("momentum"), epochs=EPOCHS, clip=at_w))
    differs(mine, train_theta(Net(), of("momentum"), epochs=EPOCHS, clip=at_theta))


@pytest.mark.parametrize("place", ["before resume_checkpoint", "after resume_checkpoint"])
@pytest.mark.parametrize("name", ["momentum", "adamw", "lamb", "lookahead_adamw"])
def test_it_goes_on_from_a_checkpoint(name, place, tmp_path):
    model, optimizer, _ = attached(name)
    train(model, optimizer, epochs=1)
    CheckpointSaver(model, optimizer, checkpoint_dir=str(tmp_path)).save_checkpoint(epoch=0, metric=0.0)

    model = Net(seed=1)
    optimizer = factory(model, name)
    if place.startswith("before"):
        syre.attach(optimizer, model, **SETTINGS)
    timm.models.resume_checkpoint(model, str(tmp_path / "last.pth.tar"), optimizer=optimizer, log_info=False)
    if place.startswith("after"):
        syre.attach(optimizer, model, **SETTINGS)
    mine = train(model, optimizer, epochs=EPOCHS - 1)
    same(mine, train_theta(Net(), of(name), epochs=EPOCHS), tolerance=1e-8)


@pytest.mark.parametrize("name", ["momentum", "adamw", "lookahead_adamw"])
def test_control_a_second_shift_would_be_seen(name):
    differs(*(train_theta(Net(), of(name), epochs=EPOCHS, shifts=shifts) for shifts in (1, 2)))


def test_the_average_of_its_ema_is_that_of_theta_plus_b():
    model, optimizer, _ = attached()
    ema = ModelEmaV3(model, decay=0.5)
    average = weights(model)
    for _ in range(3):
        train(model, optimizer, epochs=1)
        ema.update(model)
        now = weights(model)
        average = {name: 0.5 * average[name] + 0.5 * now[name] for name in now}
    same(weights(ema.module), average)


# ---- a model of timm's, whose own list says what does not decay ------------------------------------------------------


def vit():
    torch.manual_seed(0)
    size = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 4}
    return timm.models.VisionTransformer(**size).double()


def images():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(4)
    return [
        {"x": torch.randn(4, 3, 16, 16, generator=generator).double(), "labels": labels} for _ in range(MICROBATCHES)
    ]


def vit_loss(model, batch, w):
    return torch.nn.functional.cross_entropy(functional_call(model, w, (batch["x"],)), batch["labels"])


def test_a_vision_transformer_with_its_no_decay_groups():
    model = vit()
    optimizer = factory(model)
    handle = syre.attach(optimizer, model, **SETTINGS)
    outside = {name for name, p in model.named_parameters() if p.ndim == 1} | model.no_weight_decay()
    assert set(handle.anchors) == set(weights(model)) - outside
    batches = images()
    for batch in batches:
        vit_loss(model, batch, dict(model.named_parameters())).backward()
        optimizer.step()
        optimizer.zero_grad()

    def make(named):
        decayed = [p for name, p in named.items() if name not in outside]
        rest = [p for name, p in named.items() if name in outside]
        groups = [{"params": rest, "weight_decay": 0.0}, {"params": decayed, "weight_decay": 0.5}]
        return torch.optim.AdamW(groups, lr=0.02)

    options = {"epochs": 1, "batches": batches, "loss": vit_loss}
    # Adam makes much of gradients that are 0 but for rounding, as those of the keys' biases are.
    same(weights(model), train_theta(vit(), make, **options), tolerance=1e-5)
    differs(weights(model), train_theta(vit(), make, **options, sigma=0.0))
    assert draw_anchors(vit(), **SETTINGS).keys() == set(weights(model))
