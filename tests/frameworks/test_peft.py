"""PEFT: LoRA on a small model, alone and under the HF Trainer; what is frozen neither moves nor has an anchor."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from peft.utils import load_peft_weights
from theta import (
    CLIP,
    EPOCHS,
    MODES,
    ROWS,
    SETTINGS,
    Data,
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
from transformers import Trainer, TrainingArguments

import syre


def lora(seed=0, base=0):
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["layers.0", "layers.2"])
    net = Net(base)
    torch.manual_seed(seed)
    return get_peft_model(net, config).double()


def trained(model):
    return {name: value for name, value in weights(model).items() if "lora" in name}


def optimizer_of(model, make):
    return make(p for p in model.parameters() if p.requires_grad)


def train(model, optimizer, epochs=EPOCHS, *, accumulate=1, clip=None):
    for _ in range(epochs):
        for index, batch in enumerate(loader()):
            (model(**batch)["loss"] / accumulate).backward()
            if (index + 1) % accumulate:
                continue
            if clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
    return trained(model)


def attached(make, **seeds):
    model = lora(**seeds)
    optimizer = optimizer_of(model, make)
    return model, optimizer, syre.attach(optimizer, model, **SETTINGS)


@pytest.mark.parametrize("mode", MODES)
@optimizers
def test_it_trains_theta_and_what_is_frozen_stays(make, mode):
    model, optimizer, handle = attached(make)
    assert set(handle.anchors) == set(trained(model))
    mine = train(model, optimizer, **MODES[mode])
    same(mine, train_theta(lora(), of(make), **MODES[mode]))
    frozen, before = weights(model), weights(lora())
    for name in frozen.keys() - mine.keys():
        assert torch.equal(frozen[name], before[name]), name


def resumed(way, folder, make, state):
    """A new base model, the adapter, a new optimizer, the line, and the optimizer's state, in one order or another."""
    if way == "from_pretrained":  # the weights are there before the line
        model = PeftModel.from_pretrained(Net(), folder, is_trainable=True).double()
        optimizer = optimizer_of(model, make)
        syre.attach(optimizer, model, **SETTINGS)
    else:
        model, optimizer, _ = attached(make, seed=7)
        if way == "load_adapter":
            model.load_adapter(folder, "default", is_trainable=True)
        else:
            set_peft_model_state_dict(model, load_peft_weights(folder, device="cpu"))
    optimizer.load_state_dict(state)
    return model, optimizer


@pytest.mark.parametrize("way", ["from_pretrained", "load_adapter", "set_peft_model_state_dict"])
@optimizers
def test_it_goes_on_from_a_saved_adapter(make, way, tmp_path):
    model, optimizer, _ = attached(make)
    train(model, optimizer, epochs=1)
    model.save_pretrained(tmp_path)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    again, optimizer = resumed(way, str(tmp_path), make, torch.load(tmp_path / "optimizer.pt"))
    same(train(again, optimizer, epochs=EPOCHS - 1), train_theta(lora(), of(make)))


def test_an_adapter_alone_goes_on_from_where_it_is_with_keep(tmp_path):
    """Without the optimizer's state nothing tells that its weights were shifted: so say it."""
    model, optimizer, _ = attached(sgd)
    mine = train(model, optimizer, epochs=1)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(Net(), str(tmp_path), is_trainable=True).double()
    syre.attach(optimizer_of(again, sgd), again, **SETTINGS, start="keep")
    same(trained(again), mine, tolerance=0)


def test_with_keep_training_begins_at_the_base_model():
    def logits(model):
        return torch.stack([model(**batch)["logits"] for batch in loader()])

    for start, equal in (("keep", True), ("shift", False)):
        model = lora()
        syre.attach(optimizer_of(model, sgd), model, **SETTINGS, start=start)
        assert torch.equal(logits(model), logits(Net())) is equal


class WithSyre(Trainer):
    def create_optimizer(self, model=None):
        if self.optimizer is None:
            syre.attach(super().create_optimizer(model), model or self.model, **SETTINGS)
        return self.optimizer


def overridden(model, args):
    return WithSyre(model, args, train_dataset=Data())


def passed(model, args):
    optimizer = optimizer_of(model, adamw)
    syre.attach(optimizer, model, **SETTINGS)
    return Trainer(model, args, train_dataset=Data(), optimizers=(optimizer, None))


@pytest.mark.parametrize("way", [overridden, passed])
def test_under_the_hf_trainer_fresh_and_resumed(way, tmp_path):
    def arguments(folder, **options):
        settings = {"num_train_epochs": EPOCHS, "per_device_train_batch_size": ROWS, "weight_decay": 0.5}
        settings |= {"train_sampling_strategy": "sequential", "learning_rate": 0.02, "lr_scheduler_type": "constant"}
        settings |= {"gradient_accumulation_steps": 2, "max_grad_norm": CLIP, "report_to": "none", "use_cpu": True}
        settings |= {"save_strategy": "epoch", "disable_tqdm": True, "logging_strategy": "no"}
        return TrainingArguments(str(folder), **settings | options)

    expected = train_theta(lora(), of(adamw), accumulate=2, clip=CLIP)
    first = way(lora(), arguments(tmp_path))
    first.train()
    same(trained(first.model), expected)
    saved = min(tmp_path.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    again = way(lora(seed=7), arguments(tmp_path / "again", save_strategy="no"))
    again.train(resume_from_checkpoint=str(saved))
    same(trained(again.model), expected)


@optimizers
def test_control_without_syre_or_with_a_second_shift_it_would_be_seen(make):
    mine = train_theta(lora(), of(make))
    for other in ({"sigma": 0.0}, {"shifts": 2}, {"clip": CLIP}, {"accumulate": 2}):
        differs(mine, train_theta(lora(), of(make), **other))
