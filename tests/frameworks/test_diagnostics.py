"""Models of transformers and timm: the features of their layers, by the names of their authors, and a watch."""

import pytest
import torch
import transformers
from timm import create_model
from torch import nn

import syre
from syre.diagnostics.features import measure

SIZES = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
TOKENS = torch.randint(60, (4, 16), generator=torch.Generator().manual_seed(0))


def gpt2() -> nn.Module:
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    config = transformers.GPT2Config(vocab_size=60, n_embd=32, n_layer=1, n_head=4, n_positions=32, **ends)
    return transformers.GPT2LMHeadModel(config)


def bert() -> nn.Module:
    return transformers.BertModel(transformers.BertConfig(**SIZES))


def t5() -> nn.Module:
    sizes = {"vocab_size": 60, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 4}
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, decoder_start_token_id=0))


def mixtral() -> nn.Module:
    config = transformers.MixtralConfig(**SIZES, num_key_value_heads=2, num_local_experts=4)
    return transformers.MixtralForCausalLM(config)


BERT, BLOCK, OWN = "encoder.layer.0", "block.0.layer", "model.layers.0"
KINDS = {
    gpt2: [*(f"transformer.h.0.{n}" for n in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")), "lm_head"],
    bert: [
        *(f"{BERT}.attention.self.query {BERT}.attention.output.dense {BERT}.intermediate.dense".split()),
        *(f"{BERT}.output.dense", "pooler.dense", "output"),
    ],
    t5: [
        *(f"encoder.{BLOCK}.{n}" for n in ("0.SelfAttention.q", "0.SelfAttention.o")),
        *(f"encoder.{BLOCK}.1.DenseReluDense.{n}" for n in ("wi", "wo")),
        *(f"decoder.{BLOCK}.{n}" for n in ("0.SelfAttention.q", "0.SelfAttention.o", "1.EncDecAttention.q")),
        *(f"decoder.{BLOCK}.1.EncDecAttention.{n}" for n in ("k", "o")),
        *(f"decoder.{BLOCK}.2.DenseReluDense.{n}" for n in ("wi", "wo")),
        "lm_head",
    ],
    mixtral: [
        *(f"{OWN}.self_attn.q_proj", f"{OWN}.self_attn.o_proj", f"{OWN}.mlp.gate"),
        *(f"{OWN}.mlp.experts.gate_up_proj", f"{OWN}.mlp.experts.down_proj", "lm_head"),
    ],
}


@pytest.mark.parametrize("kind", KINDS)
def test_language_models_are_read_layer_by_layer(kind):
    torch.manual_seed(0)
    model = kind()
    batch = {"input_ids": TOKENS, "attention_mask": torch.ones_like(TOKENS)}
    entries = measure(model, batch | ({} if kind is bert else {"labels": TOKENS}))
    assert [entry["name"] for entry in entries] == KINDS[kind]
    assert all(entry["rank"] > 1 for entry in entries)
    assert model.training


def test_models_of_timm_are_read_and_watched():
    torch.manual_seed(0)
    for name, count, head in (("test_vit", 6 * 4 + 1, "head"), ("test_resnet", None, "fc")):
        model = create_model(name, num_classes=3)
        entries = measure(model, torch.randn(2, 3, 96, 96) if "vit" not in name else torch.randn(2, 3, 160, 160))
        assert count in (None, len(entries))
        assert entries[-1]["name"] == head
        watch = syre.Watch(torch.optim.SGD(model.parameters(), lr=0.1), model)
        assert watch.why is None
        assert {"syre/effective", "syre/distance"} <= watch.latest.keys()
