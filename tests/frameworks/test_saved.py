"""What each framework saves is a checkpoint that `python -m syre diagnose` reads."""

import argparse
from pathlib import Path

import lightning as L
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from theta import Data, Net
from timm.utils import CheckpointSaver
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from syre.__main__ import main
from syre.diagnostics.checkpoint import diagnose_state, load
from syre.diagnostics.files import WORDS


def equal(left: dict, right: dict) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_safetensors_are_read_as_their_own_package_reads_them():
    every = {word: torch.arange(6).view(2, 3).to(dtype) for word, dtype in WORDS.items()}
    state = {**every, **Net(0).state_dict(), "scalar": torch.tensor(2.5), "empty": torch.empty(0, 3)}
    save_file(state, "model.safetensors", metadata={"format": "pt"})
    read, theirs = load("model.safetensors"), load_file("model.safetensors")
    assert read.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert (read[name].dtype, read[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(read[name].flatten().view(torch.uint8), tensor.flatten().view(torch.uint8))


@pytest.mark.parametrize("size", ["1MB", "20KB"])
def test_transformers_in_one_file_and_in_shards(size):
    config = GPT2Config(vocab_size=50, n_positions=16, n_embd=32, n_layer=2, n_head=2)
    model = GPT2LMHeadModel(config)
    model.save_pretrained("model", max_shard_size=size)
    assert Path("model/model.safetensors.index.json").exists() == (size == "20KB")
    diagnosis = diagnose_state(load("model"))
    assert diagnosis["model"]["parameters"] == sum(p.numel() for p in model.parameters())
    assert {entry["name"] for entry in diagnosis["weights"]} == {n for n, p in model.named_parameters() if p.dim() > 1}


def test_the_folder_of_a_trainer():
    settings = {"report_to": "none", "use_cpu": True, "disable_tqdm": True, "max_steps": 1}
    trainer = Trainer(Net(0), TrainingArguments(output_dir="out", save_steps=1, **settings), train_dataset=Data())
    trainer.train()
    assert equal(load("out/checkpoint-1"), trainer.model.state_dict())
    assert main(["diagnose", "out/checkpoint-1"]) == 0
    assert main(["diagnose", "out/checkpoint-1/optimizer.pt"]) == 2


def test_the_folder_of_accelerate():
    accelerator = Accelerator(cpu=True)
    net = Net(0)
    net, _ = accelerator.prepare(net, torch.optim.AdamW(net.parameters()))
    for safe in (True, False):
        accelerator.save_state(f"state {safe}", safe_serialization=safe)
        assert equal(load(f"state {safe}"), net.state_dict())


class Module(L.LightningModule):
    def __init__(self, width, note):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Linear(4, width)

    def training_step(self, batch, index):
        return self.net(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters())


def test_a_checkpoint_of_lightning_with_its_settings():
    module = Module(3, argparse.Namespace(words="kept"))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=".", **quiet)
    trainer.fit(module, torch.utils.data.DataLoader(torch.randn(8, 4), 4))
    trainer.save_checkpoint("last.ckpt")
    assert equal(load("last.ckpt"), module.state_dict())


def test_a_checkpoint_of_timm_with_its_arguments():
    net = Net(0)
    optimizer = torch.optim.AdamW(net.parameters())
    args = argparse.Namespace(model="net", out=Path("here"))
    CheckpointSaver(net, optimizer, args=args, checkpoint_dir=".", recovery_dir=".").save_checkpoint(0, 0.5)
    (path,) = (file for file in Path().glob("checkpoint-*"))
    assert equal(load(path), net.state_dict())
