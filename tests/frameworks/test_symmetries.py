"""Models of timm and transformers: what is said of their units is true, and heads are found where there are some."""

import copy

import pytest
import torch
from torch import nn

from syre.diagnostics.structure import Inputs, guesses, read
from tests.core import architectures
from tests.core.test_any_model import inputs_of
from tests.diagnostics.test_structure import apart, drawn, without_reader

LARGE = 2e7  # parameters
# At least so many sets and attentions with query and key, and with output and value; other models: 1, 0, 0.
# Not found: the heads of BLOOM (whose slopes differ), those of one axis with keys and values (Falcon), others' in part.
FOUND: dict[str, tuple[int, int, int]] = {
    **dict.fromkeys(["gpt2", "openai-gpt", "gptj", "gpt_neox", "phi", "bert", "roberta", "distilbert", "vit", "deit",
                     "beit", "dinov2", "dinov2_with_registers", "swin", "swinv2", "deberta-v2", "electra", "opt",
                     "vit_tiny_patch16_224", "deit3_small_patch16_224", "deit_tiny_distilled_patch16_224",
                     "beit_base_patch16_224", "samvit_base_patch16", "vit_base_patch16_xp_224", "wav2vec2", "hubert",
                     "wavlm"], (5, 2, 2)),
    **dict.fromkeys(["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "olmo", "olmo2", "cohere",
                     "mixtral", "qwen3_moe", "granitemoe", "aria_text"], (6, 2, 2)),
    **dict.fromkeys(["t5", "mt5", "bart", "mbart", "whisper"], (8, 6, 6)),
    **dict.fromkeys(["clip", "siglip"], (8, 4, 4)),
    "vit_mae": (6, 3, 3),
    "albert": (4, 1, 1),
    "eva02_tiny_patch14_224": (4, 2, 2),
    "swin_tiny_patch4_window7_224": (12, 4, 4),
    "swinv2_tiny_window8_256": (20, 4, 4),
    "xcit_nano_12_p16_224": (12, 4, 4),
    "convit_tiny": (7, 3, 3),
    "pvt_v2_b0": (28, 6, 6),
    "hiera_tiny_224": (29, 11, 11),
    "maxvit_pico_rw_256": (74, 18, 18),
    "mixer_s32_224": (17, 0, 0),
    "convnext_atto": (15, 0, 0),
    "regnety_002": (57, 0, 0),
    "mobilenetv3_small_050": (26, 0, 0),
}  # fmt: skip


def check(name: str, model: nn.Module, inputs: Inputs) -> None:
    structure = read(copy.deepcopy(model), inputs)
    assert structure.why is None
    sets, query_key, output_value = FOUND.get(name, (1, 0, 0))
    assert len(structure.units) >= sets
    assert sum(one.query_key is not None for one in structure.attentions) >= query_key
    assert sum(one.output_value is not None for one in structure.attentions) >= output_value
    torch.manual_seed(1)  # of masks that are drawn at random
    distance = apart(model, structure, inputs)
    assert distance < 1e-5
    assert apart(model, structure, inputs, kept=without_reader) > 10 * max(distance, 1e-7)  # control


@pytest.mark.slow
@pytest.mark.parametrize("name", architectures.TRANSFORMERS)
def test_what_is_said_of_models_of_transformers_is_true(name):
    torch.manual_seed(0)
    model = drawn(architectures.transformers_models()[name](), std=0.2)  # (in float32, where it computes in that)
    given = {key: x.double() if x.is_floating_point() else x for key, x in inputs_of(name, model).items()}
    if name == "vit_mae":  # of which it masks those patches whose noise is the largest
        given["noise"] = torch.rand(1, 16)
    check(name, model, Inputs(kwargs=given))


@pytest.mark.slow
@pytest.mark.parametrize("name", architectures.TIMM)
def test_what_is_said_of_models_of_timm_is_true(name):
    build = architectures.timm_models()[name]
    if sum(p.numel() for p in architectures.on_meta(build).parameters()) > LARGE:
        pytest.skip("large")
    torch.manual_seed(0)
    model = drawn(build(), std=0.2)
    sizes = [(3, 56, 56)] if "dinov2" in name else [i.args[0].shape[1:] for i in guesses(model)][:1]
    check(name, model, Inputs((torch.randn(1, *sizes[0], dtype=torch.float64),)))
