"""accelerate: the line before `prepare`, after it, and after `load_state`; fresh, resumed, accumulated and clipped."""

import pytest
import torch
from accelerate import Accelerator
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

PLACES = ("before prepare", "after prepare", "after load_state")
places = pytest.mark.parametrize("place", PLACES)


class Script:
    """A training script; what it does first is what a new process would do."""

    def __init__(self, place, make=adamw, *, seed=0, accumulate=1, clip=None, resume=None, register=False):
        self.clip, self.net = clip, Net(seed)
        self.accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
        optimizer = make(self.net.parameters())
        if place == "before prepare":
            handle = syre.attach(optimizer, self.net, **SETTINGS)
        self.model, self.optimizer, self.loader = self.accelerator.prepare(self.net, optimizer, loader())
        if place == "after prepare":
            handle = syre.attach(self.optimizer, self.model, **SETTINGS)
        if register:
            self.accelerator.register_for_checkpointing(handle)
        if resume:
            self.accelerator.load_state(str(resume))
        if place == "after load_state":
            syre.attach(self.optimizer, self.model, **SETTINGS)

    def train(self, epochs=EPOCHS):
        for _ in range(epochs):
            for batch in self.loader:
                with self.accelerator.accumulate(self.model):
                    self.accelerator.backward(self.model(**batch)["loss"])
                    if self.clip and self.accelerator.sync_gradients:
                        self.accelerator.clip_grad_norm_(self.model.parameters(), self.clip)
                    self.optimizer.step()
                    self.optimizer.zero_grad()
        return weights(self.net)


@pytest.mark.parametrize("mode", MODES)
@optimizers
@places
def test_it_trains_theta(place, make, mode):
    same(Script(place, make, **MODES[mode]).train(), train_theta(Net(), of(make), **MODES[mode]))


@pytest.mark.parametrize("mode", ["plain", "both"])
@optimizers
@places
def test_it_goes_on_from_a_saved_state(place, make, mode, tmp_path):
    first = Script(place, make, **MODES[mode])
    first.train(epochs=1)
    first.accelerator.save_state(str(tmp_path / "state"))
    resumed = Script(place, make, seed=1, resume=tmp_path / "state", **MODES[mode])
    same(resumed.train(epochs=EPOCHS - 1), train_theta(Net(), of(make), **MODES[mode]))


@pytest.mark.parametrize("seed", [0, 1])
@places
def test_it_goes_on_from_a_state_saved_before_the_first_step(place, seed, tmp_path):
    """The weights that are loaded are then those that the shift has just made, if the init is the same."""
    Script(place).accelerator.save_state(str(tmp_path / "state"))
    same(Script(place, seed=seed, resume=tmp_path / "state").train(), train_theta(Net(), of(adamw)))


@pytest.mark.parametrize("safe", [True, False])
def test_it_goes_on_whatever_the_weights_are_saved_in(safe, tmp_path):
    first = Script("before prepare")
    first.train(epochs=1)
    first.accelerator.save_state(str(tmp_path / "state"), safe_serialization=safe)
    assert any((tmp_path / "state").glob("model*.safetensors")) is safe
    resumed = Script("before prepare", seed=1, resume=tmp_path / "state")
    same(resumed.train(epochs=EPOCHS - 1), train_theta(Net(), of(adamw)))


@pytest.mark.parametrize("place", PLACES[:2])
def test_a_registered_handle_is_saved_and_checked(place, tmp_path):
    first = Script(place, register=True)
    first.train(epochs=1)
    first.accelerator.save_state(str(tmp_path / "state"))
    resumed = Script(place, seed=1, register=True, resume=tmp_path / "state")
    same(resumed.train(epochs=EPOCHS - 1), train_theta(Net(), of(adamw)))


def test_other_anchors_than_those_of_the_state_are_refused(tmp_path, monkeypatch):
    Script("after prepare", register=True).accelerator.save_state(str(tmp_path / "state"))
    monkeypatch.setitem(SETTINGS, "seed", 4)
    with pytest.raises(ValueError, match=r"trained with other anchors \(seed=3 .*\) than are attached \(seed=4 "):
        Script("after prepare", register=True, resume=tmp_path / "state")


def test_a_state_of_a_run_without_syre_has_no_shift_and_gets_one(tmp_path):
    """Of a script that has the line since: its weights are those of plain training."""
    plain = Script("never", sgd)
    plain.accelerator.save_state(str(tmp_path / "state"))
    mine = Script("after load_state", sgd, seed=1, resume=tmp_path / "state").train()
    same(mine, train_theta(Net(), of(sgd)))


def test_a_run_that_began_without_syre_is_not_shifted_when_it_is_resumed_again(tmp_path):
    """The line came before a state without syre was loaded over it; what is saved from then on is a run with syre."""
    Script("never").accelerator.save_state(str(tmp_path / "plain"))
    second = Script("before prepare", resume=tmp_path / "plain")
    second.train(epochs=1)
    second.accelerator.save_state(str(tmp_path / "state"))
    expected = second.train(epochs=1)
    for place in PLACES:
        same(Script(place, seed=1, resume=tmp_path / "state").train(epochs=1), expected)


@optimizers
def test_control_without_syre_or_with_a_second_shift_it_would_be_seen(make):
    mine = train_theta(Net(), of(make))
    same(Script("never", make).train(), train_theta(Net(), of(make), sigma=0.0))
    for other in ({"sigma": 0.0}, {"shifts": 2}, {"clip": CLIP}, {"accumulate": 2}):
        differs(mine, train_theta(Net(), of(make), **other))
    assert not torch.equal(Net(0).layers[0].weight, Net(1).layers[0].weight)
