"""Conversion of published checkpoints into our modules."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from virnucpro_pl.errors import UserError
from virnucpro_pl.models.encoders.dnabert_s import DnabertS, DnabertSConfig
from virnucpro_pl.models.encoders.esm2 import Esm2, Esm2Config
from virnucpro_pl.models.head import Head
from virnucpro_pl.models.weights.checkpoints import Checkpoint, read_file, read_folder

_Module = TypeVar("_Module", bound=nn.Module)
_UNUSED_ESM2 = re.compile(r"^lm_head\.|^contact_head\.|^pooler\.|^embeddings\.position|\.inv_freq$")
_UNUSED_DNABERT_S = re.compile(r"^pooler\.|^cls\.|position_ids$")
_HUGGING_FACE_ESM2 = (
    (r"^esm\.", ""),
    (r"\.LayerNorm\.gamma$", ".LayerNorm.weight"),  # names of transformers 5
    (r"\.LayerNorm\.beta$", ".LayerNorm.bias"),
    (r"^embeddings\.word_embeddings\.", "embed_tokens."),
    (r"^encoder\.emb_layer_norm_after\.", "emb_layer_norm_after."),
    (r"^encoder\.layer\.(\d+)\.attention\.self\.(query|key|value)\.", r"layers.\1.self_attn.\2_proj."),
    (r"^encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"layers.\1.out_proj."),
    (r"^encoder\.layer\.(\d+)\.attention\.LayerNorm\.", r"layers.\1.self_attn_layer_norm."),
    (r"^encoder\.layer\.(\d+)\.intermediate\.dense\.", r"layers.\1.fc1."),
    (r"^encoder\.layer\.(\d+)\.output\.dense\.", r"layers.\1.fc2."),
    (r"^encoder\.layer\.(\d+)\.LayerNorm\.", r"layers.\1.final_layer_norm."),
    (r"\.self_attn\.query_proj\.", ".self_attn.q_proj."),
    (r"\.self_attn\.key_proj\.", ".self_attn.k_proj."),
    (r"\.self_attn\.value_proj\.", ".self_attn.v_proj."),
)
_OUT_PROJ = (r"\.self_attn\.out_proj\.", ".out_proj.")
_FAIR_ESM = ((r"^encoder\.sentence_encoder\.|^encoder\.", ""), _OUT_PROJ)
_DNABERT_S = (
    (r"^bert\.", ""),
    (r"^encoder\.layer\.(\d+)\.attention\.self\.Wqkv\.", r"layers.\1.Wqkv."),
    (r"^encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"layers.\1.dense."),
    (r"^encoder\.layer\.(\d+)\.attention\.output\.LayerNorm\.", r"layers.\1.attention_norm."),
    (r"^encoder\.layer\.(\d+)\.mlp\.layernorm\.", r"layers.\1.mlp_norm."),
    (r"^encoder\.layer\.(\d+)\.mlp\.", r"layers.\1."),
)


def load_esm2(path: Path) -> Esm2:
    """Build ESM-2 from a fair-esm ``.pt``, a Hugging Face folder, or safetensors with fair-esm's names.

    The dtype is ``torch.get_default_dtype()``.

    Raises:
        UserError: the file is no ESM-2 checkpoint, or is damaged.
    """
    checkpoint = read_folder(path) if path.is_dir() else read_file(path)
    tensors = _renamed(checkpoint.tensors, _HUGGING_FACE_ESM2 if path.is_dir() else _FAIR_ESM)
    sizes = _esm2_sizes(checkpoint.metadata, path)
    config = Esm2Config(
        **sizes,
        ffn_width=_rows(tensors, "layers.0.fc1.weight", path),
        vocabulary=_rows(tensors, "embed_tokens.weight", path),
        inverse_frequencies=_inverse_frequencies(checkpoint.tensors),
    )
    _check_heads(config.width, config.num_heads, path)
    if config.vocabulary < Esm2Config.vocabulary:
        raise UserError(f"{path}: embed_tokens has {config.vocabulary} rows and should have {Esm2Config.vocabulary}")
    if config.inverse_frequencies and 2 * config.num_heads * len(config.inverse_frequencies) != config.width:
        raise UserError(f"{path}: damaged: inv_freq is not half as long as an attention head is wide")
    for layer in range(config.num_layers):
        for kind in ("weight", "bias"):
            parts = [tensors.pop(f"layers.{layer}.self_attn.{part}_proj.{kind}", None) for part in "qkv"]
            shapes = {None if part is None else part.shape for part in parts}
            if len(shapes) > 1 or shapes & {None, torch.Size([])}:
                raise UserError(f"{path}: layer {layer} has no complete attention projection; download it again")
            # Cast first, so that no large tensor is copied in the dtype of the file.
            cast = [_placed(part, torch.get_default_dtype()) for part in parts if part is not None]
            tensors[f"layers.{layer}.qkv_proj.{kind}"] = torch.cat(cast)
    return _filled(lambda: Esm2(config), tensors, _UNUSED_ESM2, path)


def _esm2_sizes(metadata: dict[str, Any], path: Path) -> dict[str, Any]:
    if path.is_dir():
        for key, wanted in {"position_embedding_type": "rotary", "emb_layer_norm_before": False}.items():
            if metadata.get(key) not in (wanted, None):
                raise UserError(f"{path}: not an ESM-2 checkpoint: config.json has {key}={metadata[key]}")
        names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "token_dropout")
    elif "cfg" in metadata:
        model = metadata["cfg"].get("model") if isinstance(metadata["cfg"], dict) else None
        metadata = model if isinstance(model, dict) else getattr(model, "__dict__", {})
        names = ("encoder_layers", "encoder_embed_dim", "encoder_attention_heads", "token_dropout")
    else:
        names = ("num_layers", "embed_dim", "attention_heads", "token_dropout")
    if missing := [name for name in names[:3] if name not in metadata]:
        raise UserError(f"{path}: not an ESM-2 checkpoint: {', '.join(missing)} missing")
    layers, width, heads = (_size(metadata, name, path) for name in names[:3])
    dropout = str(metadata.get(names[3], True)).lower() == "true"
    return {"num_layers": layers, "width": width, "num_heads": heads, "token_dropout": dropout}


def _inverse_frequencies(tensors: dict[str, Tensor]) -> tuple[float, ...] | None:
    """Return the rotary frequencies of the file, which fair-esm and transformers use instead of exact ones."""
    found = {tuple(tensor.float().tolist()) for name, tensor in tensors.items() if name.endswith(".inv_freq")}
    return found.pop() if len(found) == 1 else None


def load_dnabert_s(folder: Path) -> DnabertS:
    """Build DNABERT-S (or another MosaicBERT of its kind) from a Hugging Face folder.

    The dtype is ``torch.get_default_dtype()``.

    Raises:
        UserError: the folder holds no such checkpoint, or a file is damaged.
    """
    checkpoint = read_folder(folder)
    tensors = _renamed(checkpoint.tensors, _DNABERT_S)
    config = dnabert_s_config(checkpoint.metadata, folder)
    return _filled(lambda: DnabertS(config), tensors, _UNUSED_DNABERT_S, folder)


def dnabert_s_config(metadata: dict[str, Any], folder: Path) -> DnabertSConfig:
    """Return the sizes in a ``config.json``; raise UserError if one is missing."""
    path = folder / "config.json"
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")
    if missing := [name for name in names if name not in metadata]:
        raise UserError(f"{path}: not a DNABERT-S checkpoint: {', '.join(missing)} missing")
    layers, width, heads, ffn_width, vocabulary = (_size(metadata, name, path) for name in names)
    _check_heads(width, heads, path)
    return DnabertSConfig(
        num_layers=layers,
        width=width,
        num_heads=heads,
        ffn_width=ffn_width,
        vocabulary=vocabulary,
        token_types=metadata.get("type_vocab_size", 2),
        layer_norm_eps=metadata.get("layer_norm_eps", 1e-12),
    )


def _size(metadata: dict[str, Any], name: str, path: Path) -> int:
    value = metadata[name]
    if not str(value).isdecimal() or int(value) < 1:
        raise UserError(f"{path}: {name} is {value} and should be a number; download it again")
    return int(value)


def _check_heads(width: int, num_heads: int, path: Path) -> None:
    if width % num_heads or width // num_heads % 2:
        raise UserError(f"{path}: damaged: {num_heads} attention heads do not share a width of {width} evenly")


def _rows(tensors: dict[str, Tensor], name: str, path: Path) -> int:
    """Return the number of rows of a matrix."""
    if name not in tensors:
        raise UserError(f"{path}: not an ESM-2 checkpoint: {name} is missing")
    if tensors[name].ndim != 2:
        raise UserError(f"{path}: {name} is {tuple(tensors[name].shape)} and should be a matrix; download it again")
    return tensors[name].shape[0]


def load_head(checkpoint: Checkpoint, path: Path) -> Head:
    """Build a head from a published module, a state dict or safetensors.

    Raises:
        UserError: the tensors are not those of a head, or hold NaN or infinite numbers.
    """
    weight = checkpoint.tensors.get("hidden_layer.weight")
    output = checkpoint.tensors.get("output_layer.weight")
    if weight is None or output is None or weight.ndim != 2:
        raise UserError(f"{path}: not a VirNucPro head: it has no hidden_layer and output_layer matrices")
    hidden_dim, num_inputs = weight.shape
    head = _filled(lambda: Head(num_inputs, hidden_dim), checkpoint.tensors, re.compile("$^"), path, torch.float32)
    return head.eval()


def _renamed(tensors: dict[str, Tensor], rules: Iterable[tuple[str, str]]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


def _filled(
    build: Callable[[], _Module],
    tensors: dict[str, Tensor],
    unused: re.Pattern[str],
    path: Path,
    dtype: torch.dtype | None = None,
) -> _Module:
    """Build a module on the meta device and assign exactly these tensors."""
    with torch.device("meta"):
        module = build()
    dtype = dtype or torch.get_default_dtype()
    wanted = module.state_dict()
    given = {name: tensor for name, tensor in tensors.items() if name in wanted or not unused.search(name)}
    problems = [f"{name} is missing" for name in wanted.keys() - given.keys()]
    problems += [f"{name} is not part of the model" for name in given.keys() - wanted.keys()]
    problems += [
        f"{name} is {tuple(given[name].shape)} and should be {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in given and given[name].shape != tensor.shape
    ]
    problems += [
        f"{name} holds {str(given[name].dtype).removeprefix('torch.')}, not floating-point numbers"
        for name, tensor in wanted.items()
        if name in given and tensor.is_floating_point() and not given[name].is_floating_point()
    ]
    if problems:
        raise UserError(f"{path}: does not fit {type(module).__name__}: {'; '.join(sorted(problems)[:3])}")
    module.load_state_dict({name: _placed(tensor, dtype) for name, tensor in given.items()}, assign=True)
    return module.requires_grad_(False).eval()


def _placed(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor on the default device, floating-point ones as ``dtype``, without an intermediate copy."""
    return tensor.to(torch.get_default_device(), dtype if tensor.is_floating_point() else tensor.dtype)
