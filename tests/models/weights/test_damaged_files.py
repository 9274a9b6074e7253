"""Files that are no weights, no longer weights, or worse: refused in one line that names the file, and never run."""

import json
import os
import pickle
import re
import shutil
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from support import CHECKOUT
from virnucpro_pl.models.weights.checkpoints import read_file, read_folder
from virnucpro_pl.models.weights.convert import load_dnabert_s, load_esm2
from virnucpro_pl.models.weights.head_source import HeadSource
from virnucpro_pl.models.weights.sources import DnabertSSource

HTML = b"<!DOCTYPE html>\n<html><body>404: not found</body></html>\n"
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123456789abcdef\nsize 468320053\n"


class Malicious:
    """Unpickling it runs a shell command."""

    def __init__(self, trace: Path):
        self._trace = trace

    def __reduce__(self):
        return os.system, (f"touch '{self._trace}'",)


WRITERS = {
    "zip": torch.save,
    "legacy": lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
    "plain pickle": lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2)),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("wrap", ["alone", "in a state dict", "in a model entry"])
def test_malicious_pickle_is_refused_and_nothing_runs(tmp_path, refused, writer, wrap):
    trace = tmp_path / "it ran"
    evil = Malicious(trace)
    content = {
        "alone": evil,
        "in a state dict": OrderedDict([("hidden_layer.weight", torch.zeros(2, 2)), ("extra", evil)]),
        "in a model entry": {"cfg": evil, "model": {"embed_tokens.weight": torch.zeros(2, 2)}},
    }[wrap]
    for name in ("head.pth", "esm2_t2_evil_UR50D.pt"):
        WRITERS[writer](content, tmp_path / name)
    folder = tmp_path / "DNABERT-S"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    WRITERS[writer](content, folder / "pytorch_model.bin")

    refused(HeadSource(str(tmp_path / "head.pth")).load, "head.pth", "refused")
    refused(lambda: load_esm2(tmp_path / "esm2_t2_evil_UR50D.pt"), "esm2_t2_evil_UR50D.pt", "refused")
    refused(DnabertSSource(str(folder)).load, "pytorch_model.bin", "refused")

    assert not trace.exists()
    os.system(f"touch '{trace}'")
    assert trace.exists(), "the command would have left its trace"


def test_a_class_of_the_published_name_runs_nothing_either(tmp_path, refused):
    """The published head's class name is let through; only as a holder of values."""
    trace = tmp_path / "it ran"
    program = (
        b"\x80\x02c__main__\nMLPClassifier\n"  # the class itself
        + b"(X\x06\x00\x00\x00system"
        + b"tR."  # called with an argument
    )
    (tmp_path / "head.pth").write_bytes(program)
    refused(lambda: read_file(tmp_path / "head.pth"), "head.pth")
    (tmp_path / "head.pth").write_bytes(f"cos\nsystem\n(S'touch {trace}'\ntR.".encode())
    refused(lambda: read_file(tmp_path / "head.pth"), "head.pth")

    assert not trace.exists()


def test_no_code_of_a_weight_file_is_ever_trusted():
    sources = list((CHECKOUT / "src").rglob("*.py"))
    assert len(sources) > 30
    for path in sources:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"weights_only\s*=\s*False", text), path
        assert "trust_remote_code" not in text, path
        assert not re.search(r"\bpickle\.loads?\(|\btorch\.hub\.load\b|\beval\(\s*\w", text), path
        for call in re.finditer(r"torch\.load\(.*", text):
            assert "weights_only=True" in call.group(), f"{path}: {call.group()}"


SAFETENSORS = {
    "a header of 2**63 bytes": (2**63).to_bytes(8, "little") + b"{}",
    "a header of 2**64 - 1 bytes": b"\xff" * 8 + b"{}",
    "a header longer than the file": (1000).to_bytes(8, "little") + b"{}",
    "offsets past the end": b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
    "offsets that go back": b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}',
    "a shape of 2**60": b'{"a":{"dtype":"F32","shape":[1152921504606846976],"data_offsets":[0,4]}}',
    "a shape that overflows": b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}',
    "offsets that are no numbers": b'{"a":{"dtype":"F32","shape":[1],"data_offsets":["0","4"]}}',
    "no tensors but nesting": b"[" * 100_000,
}


@pytest.mark.parametrize("damage", SAFETENSORS)
def test_safetensors_with_absurd_headers_are_refused(tmp_path, refused, damage):
    content = SAFETENSORS[damage]
    if content[:1] in b"{[":
        content = len(content).to_bytes(8, "little") + content + bytes(4)
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)

    refused(lambda: read_file(path), path, "not a readable safetensors file")
    refused(HeadSource(str(path)).load, path)


DAMAGED = {
    "empty": lambda whole: b"",
    "a web page": lambda whole: HTML,
    "a Git LFS pointer": lambda whole: LFS_POINTER,
    "noise": lambda whole: bytes(range(7, 256)) * 20,
    "cut in the middle": lambda whole: whole[: len(whole) // 2],
    "cut at the end": lambda whole: whole[:-50],
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("name", ["weights.pt", "weights.pth", "pytorch_model.bin", "model.safetensors"])
def test_damaged_file_is_told(tmp_path, mini, refused, esm_file, name, damage):
    whole = mini / "models" / "safetensors" / "esm2.safetensors" if name.endswith("safetensors") else esm_file
    path = tmp_path / name
    path.write_bytes(DAMAGED[damage](whole.read_bytes()))

    refused(lambda: read_file(path), path)
    (tmp_path / "config.json").write_text("{}")
    if name in ("pytorch_model.bin", "model.safetensors"):
        refused(lambda: read_folder(tmp_path), path)


@pytest.mark.parametrize("damage", ["a web page", "a Git LFS pointer", "noise"])
def test_a_bad_download_is_not_called_dangerous(tmp_path, refused, damage):
    """A user who hears of running code looks for an attack, not for a failed download."""
    path = tmp_path / "300_model.pth"
    path.write_bytes(DAMAGED[damage](b""))

    message = refused(lambda: read_file(path), path, "download it again")

    assert "run code" not in message


def test_what_a_refused_file_holds_is_told(tmp_path, refused):
    torch.save({"model": Malicious(tmp_path / "trace")}, tmp_path / "head.pth")

    refused(lambda: read_file(tmp_path / "head.pth"), "system")


@pytest.mark.parametrize(
    "content",
    [3, "text", [1, 2], {}, {"a": 1}, {"model": {}}, {"model": {"x": "y"}}, torch.zeros(3)],
    ids=lambda content: type(content).__name__,
)
def test_file_without_named_tensors_is_told(tmp_path, refused, content):
    torch.save(content, tmp_path / "weights.pt")

    refused(lambda: read_file(tmp_path / "weights.pt"), tmp_path / "weights.pt")


def test_missing_file_and_folder_are_told(tmp_path, refused):
    refused(lambda: read_file(tmp_path / "none.pt"), tmp_path / "none.pt", "no such")
    refused(lambda: read_file(tmp_path), tmp_path)
    refused(lambda: read_folder(tmp_path), tmp_path / "config.json")


def test_folder_without_configuration_is_told(dna_folder, refused):
    (dna_folder / "config.json").unlink()

    refused(lambda: load_dnabert_s(dna_folder), dna_folder / "config.json", "missing")
    refused(lambda: load_esm2(dna_folder), dna_folder / "config.json", "missing")


def test_folder_without_weights_is_told(dna_folder, refused):
    (dna_folder / "pytorch_model.bin").unlink()

    refused(lambda: load_dnabert_s(dna_folder), dna_folder, "pytorch_model.bin", "model.safetensors")


@pytest.mark.parametrize("text", [HTML, b"[]", b"", b"3", b"\xff\xfe\x00", b'{"hidden_size": '])
def test_configuration_that_is_no_json_object_is_told(dna_folder, refused, text):
    (dna_folder / "config.json").write_bytes(text)

    refused(lambda: load_dnabert_s(dna_folder), dna_folder / "config.json")


@pytest.mark.parametrize(
    "key", ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"]
)
@pytest.mark.parametrize("value", ["missing", "many", None])
def test_configuration_without_a_usable_size_is_told(dna_folder, refused, key, value):
    config = json.loads((dna_folder / "config.json").read_text())
    if value == "missing":
        del config[key]
    else:
        config[key] = value
    (dna_folder / "config.json").write_text(json.dumps(config))

    refused(lambda: load_dnabert_s(dna_folder), dna_folder / "config.json", key)


@pytest.mark.parametrize("heads", [0, 5, -6])
def test_number_of_heads_that_cannot_be_is_told(dna_folder, esm_variant, refused, heads):
    config = json.loads((dna_folder / "config.json").read_text())
    (dna_folder / "config.json").write_text(json.dumps({**config, "num_attention_heads": heads}))
    esm = esm_variant(lambda content: setattr(content["cfg"]["model"], "encoder_attention_heads", heads))

    refused(lambda: load_dnabert_s(dna_folder), dna_folder, "heads")
    refused(lambda: load_esm2(esm), esm, "heads")


def _index(folder: Path, content: object) -> Path:
    path = folder / "pytorch_model.bin.index.json"
    path.write_text(json.dumps(content))
    return path


def test_missing_shard_is_told(dna_folder, refused):
    _index(dna_folder, {"weight_map": {"pooler.dense.bias": "pytorch_model-00001-of-00002.bin"}})

    refused(lambda: load_dnabert_s(dna_folder), "pytorch_model-00001-of-00002.bin")


@pytest.mark.parametrize("shard", ["../evil.bin", "/evil.bin", "deeper/../../evil.bin", "..", "."])
def test_shard_outside_its_folder_is_told_and_never_opened(dna_folder, tmp_path, refused, shard):
    """What lies there is a whole checkpoint, which would load."""
    shutil.copy(dna_folder / "pytorch_model.bin", tmp_path / "evil.bin")
    _index(dna_folder, {"weight_map": {"pooler.dense.bias": shard}})

    refused(lambda: load_dnabert_s(dna_folder), dna_folder)


@pytest.mark.parametrize("content", [{}, {"weight_map": ["a"]}, {"weight_map": {"a": 3}}, {"weight_map": None}, []])
def test_shard_index_of_another_shape_is_told(dna_folder, refused, content):
    path = _index(dna_folder, content)

    refused(lambda: load_dnabert_s(dna_folder), path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("tokenizer.json", text) for text in (HTML, b"{}", b"[]", b"", b'{"version": "1.0"}')),
        *(("tokenizer_config.json", text) for text in (HTML, b"[]", b"")),
    ],
)
def test_damaged_tokenizer_is_told(dna_folder, refused, name, text):
    (dna_folder / name).write_bytes(text)

    refused(DnabertSSource(str(dna_folder), key="model.dna_encoder").tokenizer, dna_folder, "tokenizer")


def test_missing_tokenizer_is_told(dna_folder, refused):
    (dna_folder / "tokenizer.json").unlink()

    refused(DnabertSSource(str(dna_folder)).tokenizer, dna_folder, "tokenizer.json")


@pytest.mark.parametrize(
    "cfg",
    [{}, None, Namespace(a=1), {"model": {"encoder_layers": 2}}, {"model": None}, {"model": Namespace()}],
    ids=["empty", "None", "Namespace", "sizes in a dict", "no sizes", "empty sizes"],
)
def test_fair_esm_file_that_does_not_tell_its_sizes_is_told(esm_variant, refused, cfg):
    path = esm_variant(lambda content: content.update(cfg=cfg))

    refused(lambda: load_esm2(path), path, "not an ESM-2 checkpoint")


@pytest.mark.parametrize("value", ["two", None])
def test_fair_esm_file_with_a_size_that_is_no_number_is_told(esm_variant, refused, value):
    path = esm_variant(lambda content: setattr(content["cfg"]["model"], "encoder_layers", value))

    refused(lambda: load_esm2(path), path)
