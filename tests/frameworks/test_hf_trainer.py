"""The HF Trainer: three ways to pass an optimizer; fresh, resumed, accumulated and clipped."""

from pathlib import Path

import pytest
import torch
from theta import EPOCHS, ROWS, SETTINGS, Data, Net, differs, same, train_theta, weights
from transformers import Trainer, TrainerCallback, TrainingArguments

import syre

DECAY = {"lr": 0.02, "weight_decay": 0.5}
CLIP = 0.3  # below the norm of most gradients here


def arguments(folder: Path, **options) -> TrainingArguments:
    settings = {
        "output_dir": str(folder),
        "num_train_epochs": EPOCHS,
        "per_device_train_batch_size": ROWS,
        "train_sampling_strategy": "sequential",
        "learning_rate": DECAY["lr"],
        "weight_decay": DECAY["weight_decay"],
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "save_strategy": "epoch",
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "logging_strategy": "no",
    }
    return TrainingArguments(**settings | options)


# ---- the ways --------------------------------------------------------------------------------------------------------


def passed(model, args) -> Trainer:
    """optimizers=(optimizer, None)"""
    optimizer = torch.optim.AdamW(model.parameters(), **DECAY)
    syre.attach(optimizer, model, **SETTINGS)
    return Trainer(model, args, train_dataset=Data(), optimizers=(optimizer, None))


class WithSyre(Trainer):
    def create_optimizer(self, model=None):
        if self.optimizer is None:
            syre.attach(super().create_optimizer(model), model or self.model, **SETTINGS)
        return self.optimizer


def overridden(model, args) -> Trainer:
    """create_optimizer, of the Trainer's own AdamW, which leaves biases out of the decay"""
    return WithSyre(model, args, train_dataset=Data())


class Attach(TrainerCallback):
    def on_train_begin(self, args, state, control, model=None, optimizer=None, **rest):
        syre.attach(optimizer, model, **SETTINGS)


def called_back(model, args) -> Trainer:
    """optimizer_cls_and_kwargs, and a callback: the optimizer is accelerate's wrapper, its state loaded already"""
    kind = torch.optim.SGD, {"lr": 0.05, "momentum": 0.9}
    return Trainer(model, args, train_dataset=Data(), optimizer_cls_and_kwargs=kind, callbacks=[Attach()])


def without_biases(kind, **options):
    def make(named):
        groups = [[p for p in named.values() if p.ndim > 1], [p for p in named.values() if p.ndim == 1]]
        decays = (DECAY["weight_decay"], 0.0)
        return kind([{"params": g, "weight_decay": d} for g, d in zip(groups, decays, strict=True)], **options)

    return make


WAYS = {
    passed: lambda named: torch.optim.AdamW(named.values(), **DECAY),
    overridden: without_biases(torch.optim.AdamW, lr=DECAY["lr"]),
    called_back: without_biases(torch.optim.SGD, lr=0.05, momentum=0.9),
}
MODES = {
    "plain": ({}, {}),
    "accumulated": ({"gradient_accumulation_steps": 2}, {"accumulate": 2}),
    "clipped": ({"max_grad_norm": CLIP}, {"clip": CLIP}),
    "both": ({"gradient_accumulation_steps": 3, "max_grad_norm": CLIP}, {"accumulate": 3, "clip": CLIP}),
}
ways = pytest.mark.parametrize("way", WAYS)


@pytest.mark.parametrize("mode", MODES)
@ways
def test_it_trains_theta(way, mode, tmp_path):
    options, its = MODES[mode]
    trainer = way(Net(), arguments(tmp_path, **options, save_strategy="no"))
    trainer.train()
    same(weights(trainer.model), train_theta(Net(), WAYS[way], **its))


@pytest.mark.parametrize("mode", ["plain", "both"])
@ways
def test_it_goes_on_from_a_checkpoint(way, mode, tmp_path):
    options, its = MODES[mode]
    way(Net(), arguments(tmp_path, **options)).train()
    first = min(tmp_path.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    resumed = way(Net(seed=1), arguments(tmp_path / "again", **options, save_strategy="no"))
    resumed.train(resume_from_checkpoint=str(first))
    same(weights(resumed.model), train_theta(Net(), WAYS[way], **its))


@pytest.mark.parametrize("way", [passed, overridden])  # on_train_begin would come again, with the same optimizer
def test_it_trains_on_in_the_same_process(way, tmp_path):
    """A second `train` of the same trainer, which goes on from its last checkpoint."""
    trainer = way(Net(), arguments(tmp_path, num_train_epochs=1))
    trainer.train()
    trainer.args.num_train_epochs = EPOCHS
    trainer.train(resume_from_checkpoint=True)
    same(weights(trainer.model), train_theta(Net(), WAYS[way]))


def test_weights_alone_go_on_from_where_they_are_with_keep(tmp_path, monkeypatch):
    """save_only_model: without the optimizer's state nothing tells that they were shifted, so say it."""
    first = overridden(Net(), arguments(tmp_path, save_only_model=True))
    first.train()
    monkeypatch.setitem(SETTINGS, "start", "keep")
    resumed = overridden(Net(seed=1), arguments(tmp_path, save_strategy="no"))
    resumed.train(resume_from_checkpoint=True)
    assert resumed.optimizer is not None
    same(weights(resumed.model), weights(first.model), tolerance=0)


# ---- controls --------------------------------------------------------------------------------------------------------


@ways
def test_control_without_syre_or_with_a_second_shift_it_would_be_seen(way):
    mine = train_theta(Net(), WAYS[way])
    differs(mine, train_theta(Net(), WAYS[way], sigma=0.0))
    differs(mine, train_theta(Net(), WAYS[way], shifts=2))
    differs(mine, train_theta(Net(), WAYS[way], clip=CLIP))
    differs(mine, train_theta(Net(), WAYS[way], accumulate=2))


def test_control_the_trainer_without_the_line_trains_otherwise(tmp_path):
    trainer = Trainer(Net(), arguments(tmp_path, save_strategy="no"), train_dataset=Data())
    trainer.train()
    same(weights(trainer.model), train_theta(Net(), WAYS[overridden], sigma=0.0))
    differs(weights(trainer.model), train_theta(Net(), WAYS[overridden]))
