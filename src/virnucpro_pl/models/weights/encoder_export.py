"""Writers of encoders in their published formats."""

import argparse
import re
import shutil
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor

from virnucpro_pl.files.durable import replacing
from virnucpro_pl.models.encoders.dnabert_s import DnabertS
from virnucpro_pl.models.encoders.esm2 import Esm2, exact_inverse_frequencies
from virnucpro_pl.models.weights.checkpoints import read_folder

_ESM2_PREFIX = "encoder.sentence_encoder."
_FAIR_ESM_NAMES = ((r"\.out_proj\.", ".self_attn.out_proj."),)
_MOSAIC_BERT_NAMES = (
    (r"^layers\.(\d+)\.Wqkv\.", r"encoder.layer.\1.attention.self.Wqkv."),
    (r"^layers\.(\d+)\.dense\.", r"encoder.layer.\1.attention.output.dense."),
    (r"^layers\.(\d+)\.attention_norm\.", r"encoder.layer.\1.attention.output.LayerNorm."),
    (r"^layers\.(\d+)\.mlp_norm\.", r"encoder.layer.\1.mlp.layernorm."),
    (r"^layers\.(\d+)\.", r"encoder.layer.\1.mlp."),
)
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def write_esm2(encoder: Esm2, path: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write ESM-2 in fair-esm's format; the language-model head, which is not used here, is zero.

    Args:
        encoder: the encoder.
        path: path of the ``.pt`` file.
        dtype: dtype of the tensors; float16 as published.

    Raises:
        OSError: the file cannot be written.
    """
    config = encoder.config
    tensors: dict[str, Tensor] = {}
    for name, tensor in _as(encoder.state_dict(), dtype).items():
        if (fused := re.fullmatch(r"(layers\.\d+)\.qkv_proj\.(weight|bias)", name)) is None:
            tensors[_ESM2_PREFIX + _renamed(name, _FAIR_ESM_NAMES)] = tensor
            continue
        for part, piece in zip("qkv", tensor.chunk(3), strict=True):
            tensors[f"{_ESM2_PREFIX}{fused[1]}.self_attn.{part}_proj.{fused[2]}"] = piece.clone()
    frequencies = config.inverse_frequencies or exact_inverse_frequencies(config.width // config.num_heads)
    for layer in range(config.num_layers):
        tensors[f"{_ESM2_PREFIX}layers.{layer}.self_attn.rot_emb.inv_freq"] = torch.tensor(frequencies)
    width = config.width
    empty = {"dense.weight": (width, width), "dense.bias": (width,), "layer_norm.weight": (width,)}
    empty |= {"layer_norm.bias": (width,), "bias": (config.vocabulary,)}
    tensors |= {f"encoder.lm_head.{name}": torch.zeros(shape, dtype=dtype) for name, shape in empty.items()}
    tensors["encoder.lm_head.weight"] = tensors[f"{_ESM2_PREFIX}embed_tokens.weight"]  # tied
    sizes = {
        "encoder_layers": config.num_layers,
        "encoder_embed_dim": width,
        "encoder_attention_heads": config.num_heads,
    }
    sizes |= {"encoder_ffn_embed_dim": config.ffn_width, "token_dropout": config.token_dropout}
    model = argparse.Namespace(_name="masked_lm_esm2", arch="masked_lm_esm2", **sizes)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        torch.save({"cfg": {"model": model}, "model": tensors}, unfinished)


def write_dnabert_s(encoder: DnabertS, source: Path, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write DNABERT-S as a Hugging Face folder with the published names.

    Args:
        encoder: the encoder.
        source: folder of its checkpoint; configuration, tokenizer and pooler are copied from it.
        folder: folder of the files, which are replaced.
        dtype: dtype of the tensors; float32 as published.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", *_TOKENIZER_FILES):
        if (source / name).is_file() and source != folder:
            shutil.copyfile(source / name, folder / name)
    named = {_renamed(name, _MOSAIC_BERT_NAMES): tensor for name, tensor in encoder.state_dict().items()}
    pooler = {name: tensor for name, tensor in read_folder(source).tensors.items() if name.startswith("pooler.")}
    with replacing(folder / "pytorch_model.bin") as unfinished:
        torch.save(OrderedDict(_as(named | pooler, dtype)), unfinished)


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        if (found := re.sub(pattern, replacement, name)) != name:
            return found
    return name


def _as(tensors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
