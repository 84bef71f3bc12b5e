"""Models of torchvision, timm and transformers, built from their configurations: nothing is downloaded.

`python -m tests.core.architectures` prints what each parameter that is not of torch's own kinds gets, a row for each
model and kind: this is `architectures.txt`, read against the sources of the models before it was committed.
"""

import importlib.util
import inspect
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import torch
from torch import nn

from syre.core import Scale, scale_table

TABLE = Path(__file__).with_name("architectures.txt")


# ---- torchvision -----------------------------------------------------------------------------------------------------


def torchvision_models() -> dict[str, Callable[[], nn.Module]]:
    from torchvision import models

    return {name: lambda name=name: _torchvision(name) for name in models.list_models()}


def _torchvision(name: str) -> nn.Module:
    from torchvision import models
    from torchvision.models import regnet

    options: dict[str, object] = {"weights": None}
    if "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
        options["weights_backbone"] = None  # of detection and segmentation
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False
    widths = regnet.BlockParams.from_init_params

    def computed(*args, **kwargs):  # of numbers, which the meta device has not
        with torch.device("cpu"):
            return widths(*args, **kwargs)

    with mock.patch.object(regnet.BlockParams, "from_init_params", computed):
        return models.get_model(name, **options)


# ---- timm ------------------------------------------------------------------------------------------------------------

SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 4}  # of a vision transformer
TIMM: dict[str, dict] = {
    "vit_tiny_patch16_224": SMALL,
    "deit3_small_patch16_224": SMALL,
    "deit_tiny_distilled_patch16_224": SMALL,
    "beit_base_patch16_224": SMALL,
    "eva02_tiny_patch14_224": SMALL,
    "vit_small_patch14_reg4_dinov2": SMALL | {"img_size": 56},
    "vit_base_patch16_siglip_224": SMALL,
    "vit_small_patch16_dinov3_qkvb": SMALL,
    "samvit_base_patch16": SMALL | {"img_size": 64, "global_attn_indexes": (1,)},
    "vit_base_patch16_xp_224": SMALL,
    "mixer_s32_224": {},
    "resmlp_12_224": {},
    "gmlp_ti16_224": {},
    "xcit_nano_12_p16_224": {"depth": 2, "embed_dim": 48},
    "cait_xxs24_224": SMALL,
    "convit_tiny": {"depth": 3, "local_up_to_layer": 2, "embed_dim": 48, "num_heads": 4},
    "tnt_s_patch16_224": {"depth": 2},
    "crossvit_tiny_240": {},
    "coat_lite_tiny": {},
    "swin_tiny_patch4_window7_224": {"depths": (1, 1, 1, 1), "embed_dim": 24},
    "swinv2_tiny_window8_256": {"depths": (1, 1, 1, 1), "embed_dim": 24},
    "swinv2_cr_tiny_224": {"depths": (1, 1, 1, 1), "embed_dim": 24},
    "volo_d1_224": {},
    "pvt_v2_b0": {},
    "mvitv2_tiny": {},
    "hiera_tiny_224": {},
    "levit_128s": {},
    "efficientformer_l1": {},
    "efficientvit_m0": {},
    "visformer_tiny": {},
    "coatnet_nano_rw_224": {},
    "maxvit_pico_rw_256": {},
    "maxvit_tiny_tf_224": {},
    "convnext_atto": {},
    "convnextv2_atto": {},
    "edgenext_xx_small": {},
    "poolformerv2_s12": {},
    "caformer_s18": {},
    "dm_nfnet_f0": {},
    "eca_nfnet_l0": {},
    "resnetv2_50d_frn": {},
    "efficientnet_cc_b0_4e": {},
    "mobilenetv3_small_050": {},
    "regnety_002": {},
    "hgnetv2_b0": {},
    "lambda_resnet26rpt_256": {},
    "halonet26t": {},
}


def timm_models() -> dict[str, Callable[[], nn.Module]]:
    import timm

    return {name: lambda name=name: timm.create_model(name, pretrained=False, **TIMM[name]) for name in TIMM}


# ---- transformers ----------------------------------------------------------------------------------------------------

WIDTH = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4}
WORDS = WIDTH | {"vocab_size": 96, "max_position_embeddings": 40, "pad_token_id": 0}
LLAMA = WORDS | {"num_key_value_heads": 2, "head_dim": 14}
EXPERTS = LLAMA | {"num_local_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 20}
IMAGES = WIDTH | {"image_size": 32, "patch_size": 8}
GPT2 = {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_inner": 80, "vocab_size": 96, "n_positions": 40}
SEQ = {
    "d_model": 48, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 80, "decoder_ffn_dim": 72, "vocab_size": 96, "max_position_embeddings": 40, "pad_token_id": 0,
    "decoder_start_token_id": 2,
}  # fmt: skip
T5 = {
    "d_model": 48, "d_kv": 10, "d_ff": 80, "num_layers": 2, "num_heads": 4, "vocab_size": 96, "pad_token_id": 0,
    "decoder_start_token_id": 0,
}  # fmt: skip
SOUND = WIDTH | {
    "conv_dim": (24, 32), "conv_kernel": (10, 3), "conv_stride": (5, 2), "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4, "vocab_size": 30,
}  # fmt: skip
STAGES = {"hidden_sizes": [24, 32], "depths": [1, 1], "num_stages": 2}
SWIN = {"embed_dim": 24, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4, "image_size": 32, "patch_size": 2}
# model type | head (of the AutoModel classes) | configuration, small and with dimensions that differ
TRANSFORMERS: dict[str, tuple[str, dict]] = {
    "gpt2": ("CausalLM", GPT2),
    "openai-gpt": ("CausalLM", GPT2),
    "gptj": ("CausalLM", GPT2 | {"rotary_dim": 4}),
    "gpt_neox": ("CausalLM", WORDS),
    "opt": ("CausalLM", {"hidden_size": 48, "ffn_dim": 80, "num_hidden_layers": 2, "num_attention_heads": 4,
                         "vocab_size": 96, "max_position_embeddings": 40, "word_embed_proj_dim": 24}),
    "bloom": ("CausalLM", {"hidden_size": 48, "n_layer": 2, "n_head": 4, "vocab_size": 96}),
    "falcon": ("CausalLM", WORDS),
    "phi": ("CausalLM", WORDS),
    "phi3": ("CausalLM", LLAMA),
    "llama": ("CausalLM", LLAMA),
    "mistral": ("CausalLM", LLAMA),
    "qwen2": ("CausalLM", LLAMA),
    "qwen3": ("CausalLM", LLAMA),
    "gemma": ("CausalLM", LLAMA),
    "gemma2": ("CausalLM", LLAMA),
    "gemma3_text": ("CausalLM", LLAMA),
    "olmo": ("CausalLM", LLAMA),
    "olmo2": ("CausalLM", LLAMA),
    "cohere": ("CausalLM", LLAMA | {"use_qk_norm": True}),
    "mixtral": ("CausalLM", EXPERTS),
    "qwen3_moe": ("CausalLM", EXPERTS | {"num_experts": 3}),
    "gpt_oss": ("CausalLM", EXPERTS),
    "granitemoe": ("CausalLM", EXPERTS),
    "jetmoe": ("CausalLM", WORDS | {"kv_channels": 14, "num_key_value_heads": 2, "num_local_experts": 3,
                                    "num_experts_per_tok": 2}),
    "aria_text": ("CausalLM", EXPERTS | {"moe_num_experts": 3, "moe_topk": 2, "moe_num_shared_experts": 1}),
    "llama4_text": ("CausalLM", EXPERTS | {"intermediate_size_mlp": 88, "num_experts_per_tok": 1}),
    "deepseek_v3": ("CausalLM", WORDS | {
        "moe_intermediate_size": 20, "n_routed_experts": 4, "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2,
        "first_k_dense_replace": 1, "q_lora_rank": 18, "kv_lora_rank": 22, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4,
        "v_head_dim": 10, "num_key_value_heads": 4}),
    "mamba": ("CausalLM", {"hidden_size": 48, "num_hidden_layers": 2, "vocab_size": 96, "state_size": 10,
                           "time_step_rank": 7}),
    "mamba2": ("CausalLM", {"hidden_size": 48, "num_hidden_layers": 2, "vocab_size": 96, "state_size": 10,
                            "num_heads": 6, "head_dim": 16, "expand": 2, "n_groups": 2}),
    "rwkv": ("CausalLM", {"hidden_size": 48, "num_hidden_layers": 2, "vocab_size": 96, "attention_hidden_size": 48,
                          "intermediate_size": 80}),
    "recurrent_gemma": ("CausalLM", LLAMA | {"lru_width": 40, "head_dim": 10, "num_hidden_layers": 3}),
    "qwen3_next": ("CausalLM", EXPERTS | {
        "num_experts": 3, "shared_expert_intermediate_size": 28, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
        "linear_key_head_dim": 10, "linear_value_head_dim": 12, "num_hidden_layers": 4, "head_dim": 16}),
    "xlnet": ("CausalLM", {"d_model": 48, "n_layer": 2, "n_head": 4, "d_inner": 80, "vocab_size": 96}),
    "bert": ("MaskedLM", WORDS),
    "roberta": ("MaskedLM", WORDS),
    "deberta": ("MaskedLM", WORDS | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
    "deberta-v2": ("MaskedLM", WORDS),
    "electra": ("MaskedLM", WORDS | {"embedding_size": 28}),
    "albert": ("MaskedLM", WORDS | {"embedding_size": 28}),
    "distilbert": ("MaskedLM", {"dim": 48, "hidden_dim": 80, "n_layers": 2, "n_heads": 4, "vocab_size": 96,
                                "max_position_embeddings": 40}),
    "convbert": ("MaskedLM", WORDS | {"embedding_size": 28, "num_groups": 2}),
    "t5": ("Seq2SeqLM", T5),
    "mt5": ("Seq2SeqLM", T5 | {"tie_word_embeddings": False}),
    "bart": ("Seq2SeqLM", SEQ),
    "mbart": ("Seq2SeqLM", SEQ),
    "vit": ("ImageClassification", IMAGES),
    "deit": ("ImageClassificationWithTeacher", IMAGES),
    "beit": ("ImageClassification", IMAGES | {"use_relative_position_bias": True, "layer_scale_init_value": 0.1}),
    "dinov2": ("ImageClassification", IMAGES),
    "dinov2_with_registers": ("ImageClassification", IMAGES),
    "convnext": ("ImageClassification", STAGES),
    "convnextv2": ("ImageClassification", STAGES),
    "swin": ("ImageClassification", SWIN),
    "swinv2": ("ImageClassification", SWIN),
    "vit_mae": ("PreTraining", IMAGES | {"decoder_hidden_size": 40, "decoder_intermediate_size": 72,
                                         "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 4}),
    "clip": ("", {"text_config": WORDS, "vision_config": IMAGES, "projection_dim": 36}),
    "siglip": ("", {"text_config": WORDS, "vision_config": IMAGES}),
    "wav2vec2": ("CTC", SOUND),
    "hubert": ("CTC", SOUND),
    "wavlm": ("CTC", SOUND),
    "wav2vec2-conformer": ("CTC", SOUND | {"position_embeddings_type": "relative"}),
    "whisper": ("SpeechSeq2Seq", SEQ | {"num_mel_bins": 16, "max_source_positions": 20, "max_target_positions": 20,
                                        "suppress_tokens": None, "begin_suppress_tokens": None}),
}  # fmt: skip


def transformers_models() -> dict[str, Callable[[], nn.Module]]:
    return {name: lambda name=name: _transformer(name) for name in TRANSFORMERS}


def _transformer(name: str) -> nn.Module:
    import transformers

    transformers.logging.set_verbosity_error()
    head, options = TRANSFORMERS[name]
    config = transformers.AutoConfig.for_model(name, **options)
    config._experts_implementation = config._attn_implementation = "eager"
    if head == "ImageClassificationWithTeacher":
        return transformers.DeiTForImageClassificationWithTeacher(config)
    auto = getattr(transformers, f"AutoModelFor{head}" if head else "AutoModel")
    return auto.from_config(config)


# ---- the table -------------------------------------------------------------------------------------------------------

LIBRARIES = {"torchvision": torchvision_models, "timm": timm_models, "transformers": transformers_models}


def available() -> list[str]:
    return [name for name in LIBRARIES if importlib.util.find_spec(name)]


def on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    """Shapes only."""
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        return build()


def ruled(model: nn.Module) -> list[Scale]:
    """Of the parameters that are not of a kind of torch's."""
    return [scale for scale in scale_table(model, sigma=1.0) if scale.rule != "table"]


def expression(scale: Scale) -> str:
    """Its d by its dimensions: `none`; `length`, of the one over 1; `dim 1 2`, their product; `as x`; `tied to x`."""
    shape, d = scale.shape, scale.fan_in
    if d is None:
        return "none"
    if scale.rule.startswith("dimension"):
        return "dim " + " ".join(re.findall(r"\d", scale.rule))
    if scale.rule == "last dimension":
        return f"dim {len(shape) - 1}"
    if scale.rule == "its length":
        return "length"
    if scale.rule in ("the input of an expert", "in_features"):
        return f"dim {shape.index(d, 1 if len(shape) == 3 else 0)}"
    return scale.rule


def rows(library: str, name: str, model: nn.Module) -> Iterator[str]:
    """`library model | kind | how many | d`, sorted."""
    kinds = Counter((scale.kind, expression(scale)) for scale in ruled(model))
    for (kind, d), count in sorted(kinds.items()):
        yield f"{library} {name} | {kind} | {count} | {d}"


if __name__ == "__main__":
    for library in sys.argv[1:] or LIBRARIES:
        for name, build in LIBRARIES[library]().items():
            for row in rows(library, name, on_meta(build)):
                print(row)
