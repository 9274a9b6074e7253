"""Models with random weights in the published formats, for timing sizes whose weights cannot be had."""

import argparse
import json
import shutil
from pathlib import Path

import torch
from torch import Tensor

DNABERT_S = {"layers": 12, "width": 768, "heads": 12, "ffn": 3072}
TINY_DNABERT_S = {"layers": 1, "width": 4, "heads": 1, "ffn": 4}
ESM2 = {"tiny": (1, 4, 1), "35m": (12, 480, 20), "150m": (30, 640, 20)}  # layers, width, heads


def write_models(folder: Path, tokenizer: Path, size: str) -> None:
    """Write ESM-2 of a size, DNABERT-S at full size and a head below ``folder``, as the golden models lie.

    With size ``tiny`` both encoders are so small that what surrounds them takes most of the time.

    Args:
        folder: gets the folders ``DNABERT-S``, ``esm`` and ``mlp``.
        tokenizer: a DNABERT-S checkpoint folder whose tokenizer and vocabulary are used.
        size: a key of ``ESM2``.
    """
    torch.manual_seed(0)
    for name in ("DNABERT-S", "esm", "mlp"):
        (folder / name).mkdir(parents=True)
    dnabert_s = TINY_DNABERT_S if size == "tiny" else DNABERT_S
    _write_dnabert_s(folder / "DNABERT-S", tokenizer, dnabert_s)
    layers, width, heads = ESM2[size]
    _write_esm2(folder / "esm" / f"esm2_t{layers}_{size}_random.pt", layers, width, heads)
    head = {**_linear("hidden_layer", dnabert_s["width"] + width, 512), **_linear("output_layer", 512, 2)}
    head |= _norm("bn1", 512) | {"bn1.running_mean": torch.zeros(512), "bn1.running_var": torch.ones(512)}
    head["bn1.num_batches_tracked"] = torch.tensor(0)
    torch.save(head, folder / "mlp" / "300_model.pth")


def _write_dnabert_s(folder: Path, tokenizer: Path, sizes: dict[str, int]) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(tokenizer / name, folder)
    config = json.loads((tokenizer / "config.json").read_text())
    layers, width, heads, ffn = sizes.values()
    config |= {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": ffn,
    }
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {
        "embeddings.word_embeddings.weight": _matrix(config["vocab_size"], width),
        "embeddings.token_type_embeddings.weight": _matrix(2, width),
        **_norm("embeddings.LayerNorm", width),
    }
    for layer in (f"encoder.layer.{i}" for i in range(layers)):
        tensors |= _linear(f"{layer}.attention.self.Wqkv", width, 3 * width)
        tensors |= _linear(f"{layer}.attention.output.dense", width, width)
        tensors |= _norm(f"{layer}.attention.output.LayerNorm", width)
        tensors[f"{layer}.mlp.gated_layers.weight"] = _matrix(2 * ffn, width)
        tensors |= _linear(f"{layer}.mlp.wo", ffn, width)
        tensors |= _norm(f"{layer}.mlp.layernorm", width)
    torch.save(tensors, folder / "pytorch_model.bin")


def _write_esm2(path: Path, layers: int, width: int, heads: int) -> None:
    tensors = {"encoder.sentence_encoder.embed_tokens.weight": _matrix(33, width)}
    frequencies = 10000.0 ** -(torch.arange(0, width // heads, 2) / (width // heads))
    for layer in (f"encoder.sentence_encoder.layers.{i}" for i in range(layers)):
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            tensors |= _linear(f"{layer}.self_attn.{part}", width, width)
        tensors[f"{layer}.self_attn.rot_emb.inv_freq"] = frequencies
        tensors |= _norm(f"{layer}.self_attn_layer_norm", width) | _norm(f"{layer}.final_layer_norm", width)
        tensors |= _linear(f"{layer}.fc1", width, 4 * width) | _linear(f"{layer}.fc2", 4 * width, width)
    tensors |= _norm("encoder.sentence_encoder.emb_layer_norm_after", width)
    sizes = argparse.Namespace(
        encoder_layers=layers, encoder_embed_dim=width, encoder_attention_heads=heads, token_dropout=True
    )
    torch.save({"cfg": {"model": sizes}, "model": tensors}, path)


def _matrix(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns) * 0.02


def _linear(name: str, inputs: int, outputs: int) -> dict[str, Tensor]:
    return {f"{name}.weight": _matrix(outputs, inputs), f"{name}.bias": torch.randn(outputs) * 0.02}


def _norm(name: str, width: int) -> dict[str, Tensor]:
    return {f"{name}.weight": torch.ones(width), f"{name}.bias": torch.zeros(width)}
