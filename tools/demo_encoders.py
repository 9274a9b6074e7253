"""Write untrained encoders of any size in the published formats, to be trained from scratch.

    python tools/demo_encoders.py DATASET FOLDER [--layers 2 --width 64 --heads 4 --dna-ffn 128 --vocabulary 512]

The byte pairs of the DNA tokenizer are learned from the training part (column split) of a dataset that ``prepare`` has
made. The folder gets ``DNABERT-S/`` in Hugging Face layout and ``esm2.pt`` as fair-esm has it.
"""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn

from virnucpro_pl.models.encoders.dnabert_s import DnabertS, DnabertSConfig
from virnucpro_pl.models.encoders.esm2 import Esm2, Esm2Config
from virnucpro_pl.models.weights.encoder_export import write_dnabert_s, write_esm2
from virnucpro_pl.training.labelled_store import LabelledStore

SPECIAL_TOKENS = {"unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "mask": "[MASK]"}


class Sizes(NamedTuple):
    """Of both encoders."""

    layers: int
    width: int
    heads: int
    dna_ffn: int
    vocabulary: int


def new_dnabert_s(sizes: Sizes) -> DnabertS:
    """Return DNABERT-S with weights drawn as BERT's are (Devlin et al. 2019, arXiv:1810.04805)."""
    config = DnabertSConfig(sizes.layers, sizes.width, sizes.heads, sizes.dna_ffn, sizes.vocabulary)
    return _drawn(DnabertS(config), 1.0)  # type: ignore[return-value]


def new_esm2(sizes: Sizes) -> Esm2:
    """Return ESM-2 with weights drawn likewise, embeddings as large as the layer norms' outputs."""
    config = Esm2Config(sizes.layers, sizes.width, sizes.heads, 4 * sizes.width)
    return _drawn(Esm2(config), 1.0)  # type: ignore[return-value]


def _drawn(encoder: nn.Module, gain: float) -> nn.Module:
    for module in encoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight, gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)
    return encoder


def write_tokenizer(sequences: list[bytes], vocabulary: int, folder: Path) -> None:
    """Train byte pairs and write them as the published tokenizer.json is written."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    texts = [text for sequence in sequences if not set(text := sequence.decode()) - set("ACGT")]
    special = list(SPECIAL_TOKENS.values())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=special, initial_alphabet=[*"ACGT"], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    write_json(folder / "tokenizer.json", tokenizer_content(trained["vocab"], trained["merges"]))
    write_json(folder / "special_tokens_map.json", {f"{k}_token": SPECIAL_TOKENS[k] for k in sorted(SPECIAL_TOKENS)})
    settings = {
        "clean_up_tokenization_spaces": True,
        "model_max_length": 1000000000000000019884624838656,
        "tokenizer_class": "PreTrainedTokenizerFast",
    } | {f"{kind}_token": token for kind, token in SPECIAL_TOKENS.items()}
    write_json(folder / "tokenizer_config.json", dict(sorted(settings.items())))


def tokenizer_content(vocabulary: dict[str, int], merges: list[list[str]]) -> dict[str, object]:
    """Give the published tokenizer.json other byte pairs."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    cls, first, sep = ({"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "[SEP]", "type_id": 0}})  # fmt: skip
    second = [{"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}]
    padding = {"strategy": {"Fixed": 2000}, "direction": "Right", "pad_to_multiple_of": None}
    model = {"type": "BPE", "dropout": None, "unk_token": "[UNK]", "continuing_subword_prefix": None}
    return {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 2000, "strategy": "LongestFirst", "stride": 0},
        "padding": padding | {"pad_id": 3, "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [{"id": i, "content": token} | flags for i, token in enumerate(SPECIAL_TOKENS.values())],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [cls, first, sep],
            "pair": [cls, first, sep, *second],
            "special_tokens": {t: {"id": t, "ids": [i], "tokens": [t]} for t, i in (("[CLS]", 1), ("[SEP]", 2))},
        },
        "decoder": None,
        "model": model
        | {"end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False}
        | {"vocab": dict(sorted(vocabulary.items(), key=lambda item: item[1])), "merges": [*map(" ".join, merges)]},
    }


def write_json(path: Path, content: dict[str, object]) -> None:
    """Write JSON as the published files have it."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")


def dnabert_s_config(sizes: Sizes) -> dict[str, object]:
    """Give the published config.json other sizes."""
    bert = {"AutoModel": "BertModel", "AutoModelForMaskedLM": "BertForMaskedLM"}
    bert["AutoModelForSequenceClassification"] = "BertForSequenceClassification"
    config: dict[str, object] = {
        "_name_or_path": "zhihan1996/DNABERT-2-117M", "alibi_starting_size": 512, "architectures": ["BertModel"],
        "attention_probs_dropout_prob": 0.0,
        "auto_map": {"AutoConfig": "configuration_bert.BertConfig"} | {k: f"bert_layers.{v}" for k, v in bert.items()},
        "classifier_dropout": None, "gradient_checkpointing": False, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
        "hidden_size": sizes.width, "initializer_range": 0.02, "intermediate_size": sizes.dna_ffn,
        "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "model_type": "bert",
        "num_attention_heads": sizes.heads,
        "num_hidden_layers": sizes.layers, "pad_token_id": 0, "position_embedding_type": "absolute",
        "torch_dtype": "float32", "transformers_version": "4.28.0", "type_vocab_size": 2, "use_cache": True,
        "vocab_size": sizes.vocabulary,
    }  # fmt: skip
    return config


def training_orfs(store: LabelledStore) -> list[bytes]:
    """Return the nucleotides of the ORFs that may be learned from."""
    rows = np.flatnonzero((store.column("split") == "train")[store.orf_records])
    return store.nucleotides.take(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("folder", type=Path)
    for name, size in zip(Sizes._fields, (2, 64, 4, 128, 512), strict=True):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=size)
    parser.add_argument("--seed", type=int, default=300)
    asked = parser.parse_args()
    sizes = Sizes(*(getattr(asked, name) for name in Sizes._fields))
    torch.manual_seed(asked.seed)
    untrained = asked.folder / "DNABERT-S"
    untrained.mkdir(parents=True, exist_ok=True)
    write_tokenizer(training_orfs(LabelledStore(asked.dataset)), sizes.vocabulary, untrained)
    write_json(untrained / "config.json", dnabert_s_config(sizes))
    pooler = {
        "pooler.dense.weight": torch.zeros(sizes.width, sizes.width),
        "pooler.dense.bias": torch.zeros(sizes.width),
    }
    torch.save(pooler, untrained / "pytorch_model.bin")
    write_dnabert_s(new_dnabert_s(sizes), untrained, untrained)
    write_esm2(new_esm2(sizes), asked.folder / "esm2.pt", torch.float32)


if __name__ == "__main__":
    main()
