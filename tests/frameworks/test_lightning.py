"""Lightning, automatic and manual: fresh, resumed, accumulated, clipped, and after `lr_find`."""

import lightning as L
import pytest
from lightning.pytorch.callbacks import LearningRateFinder, ModelCheckpoint
from lightning.pytorch.tuner import Tuner
from theta import (
    CLIP,
    EPOCHS,
    MODES,
    SETTINGS,
    Net,
    adamw,
    differs,
    loader,
    of,
    optimizers,
    same,
    sgd,
    train_theta,
    weights,
)

import syre


class Module(L.LightningModule):
    """Automatic optimization: accumulation and clipping are the Trainer's."""

    def __init__(self, make=adamw, seed=0, **mode):
        super().__init__()
        self.net, self.make, self.mode, self.lr = Net(seed), make, mode, None

    def forward(self, x, labels):
        return self.net(x, labels)

    def training_step(self, batch, index):
        return self(**batch)["loss"]

    def configure_optimizers(self):
        optimizer = self.make(self.parameters())
        if self.lr:
            optimizer.param_groups[0]["lr"] = self.lr
        syre.attach(optimizer, self, **SETTINGS)
        return optimizer

    def trainer_settings(self):
        return {"accumulate_grad_batches": self.mode.get("accumulate", 1), "gradient_clip_val": self.mode.get("clip")}


class Manual(Module):
    """Manual optimization: the module does both itself."""

    def __init__(self, *args, **mode):
        super().__init__(*args, **mode)
        self.automatic_optimization = False

    def training_step(self, batch, index):
        optimizer, accumulate = self.optimizers(), self.mode.get("accumulate", 1)
        self.manual_backward(self(**batch)["loss"] / accumulate)
        if (index + 1) % accumulate == 0:
            if clip := self.mode.get("clip"):
                self.clip_gradients(optimizer, gradient_clip_val=clip, gradient_clip_algorithm="norm")
            optimizer.step()
            optimizer.zero_grad()

    def trainer_settings(self):
        return {}


class Delayed(Module):
    """Attached where both exist already: `self.optimizers()` is Lightning's wrapper, its state loaded already."""

    def configure_optimizers(self):
        return self.make(self.parameters())

    def on_train_start(self):
        syre.attach(self.optimizers(), self, **SETTINGS)


class Plain(Module):
    def configure_optimizers(self):
        return self.make(self.parameters())


kinds = pytest.mark.parametrize("kind", [Module, Manual, Delayed])


def trainer_of(module, folder, epochs=EPOCHS, callbacks=(), **options):
    settings = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    settings |= {"enable_checkpointing": any(isinstance(one, ModelCheckpoint) for one in callbacks)}
    settings |= {"max_epochs": epochs, "default_root_dir": folder, "callbacks": list(callbacks)}
    return L.Trainer(**settings, **module.trainer_settings(), **options)


def fit(module, folder, *, resume=None, **settings):
    trainer_of(module, folder, **settings).fit(module, loader(), ckpt_path=resume)
    return weights(module)


def reference(module, **options):
    return train_theta(type(module)(module.make), of(module.make), **module.mode, **options)


@pytest.mark.parametrize("mode", MODES)
@optimizers
@kinds
def test_it_trains_theta(kind, make, mode, tmp_path):
    module = kind(make, **MODES[mode])
    same(fit(module, tmp_path), reference(module))


@pytest.mark.parametrize("mode", ["plain", "both"])
@optimizers
@kinds
def test_it_goes_on_from_ckpt_path(kind, make, mode, tmp_path):
    first = kind(make, **MODES[mode])
    fit(first, tmp_path, callbacks=[ModelCheckpoint(tmp_path, filename="first", every_n_epochs=1)], epochs=1)
    resumed = kind(make, seed=1, **MODES[mode])
    same(fit(resumed, tmp_path, resume=tmp_path / "first.ckpt"), reference(resumed))


@kinds
def test_it_goes_on_in_the_same_process_with_the_module_that_there_is(kind, tmp_path):
    """`fit` makes a new optimizer, and so attaches again, to weights that are shifted and trained."""
    module = kind()
    saver = ModelCheckpoint(tmp_path, filename="first", every_n_epochs=1)
    fit(module, tmp_path, callbacks=[saver], epochs=1)
    same(fit(module, tmp_path, resume=tmp_path / "first.ckpt"), reference(module))


@kinds
def test_a_second_fit_with_a_fresh_optimizer_does_not_shift_again(kind, tmp_path):
    module = kind(sgd)
    fit(module, tmp_path, epochs=1)
    after = weights(module)
    trainer = trainer_of(module, tmp_path, epochs=1, limit_train_batches=0)
    trainer.fit(module, loader())
    if kind is not Delayed:  # no batch, no on_train_start
        assert trainer.optimizers[0] is not None
    same(weights(module), after)


# ---- lr_find: trains, and puts everything back -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Module, Delayed])
def test_after_lr_find_of_a_tuner_it_trains_as_if_nothing_had_been(kind, tmp_path):
    module = kind(sgd)
    found = Tuner(trainer_of(module, tmp_path)).lr_find(module, loader(), num_training=6, update_attr=False)
    assert len(found.results["lr"]) == 6
    same(fit(module, tmp_path), reference(module))


@pytest.mark.parametrize("kind", [Module, Delayed])
def test_after_lr_find_in_the_same_trainer_it_trains_as_if_nothing_had_been(kind, tmp_path):
    module = kind(sgd)
    trainer = trainer_of(module, tmp_path)
    Tuner(trainer).lr_find(module, loader(), num_training=6, update_attr=False)
    trainer.fit(module, loader())
    same(weights(module), reference(module))


def test_the_learning_rate_finder_within_fit_leaves_only_its_rate(tmp_path):
    module, epochs = Module(sgd), 5
    finder = LearningRateFinder(min_lr=1e-3, max_lr=0.1, num_training_steps=20, early_stop_threshold=None)
    mine = fit(module, tmp_path, callbacks=[finder], epochs=epochs)
    assert 1e-3 < module.lr < 0.1

    def make(named):
        optimizer = sgd(named.values())
        optimizer.param_groups[0]["lr"] = module.lr
        return optimizer

    same(mine, train_theta(Module(sgd), make, epochs=epochs))


# ---- controls --------------------------------------------------------------------------------------------------------


@optimizers
def test_control_without_syre_or_with_a_second_shift_it_would_be_seen(make, tmp_path):
    module = Module(make)
    mine = reference(module)
    same(fit(Plain(make), tmp_path), reference(module, sigma=0.0))
    for other in ({"sigma": 0.0}, {"shifts": 2}, {"clip": CLIP}, {"accumulate": 2}):
        differs(mine, reference(module, **other))
