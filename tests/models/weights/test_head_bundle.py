"""Heads with what is known of them, and heads for the published script."""

import io
import json
import pickletools
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from virnucpro_pl.errors import UserError
from virnucpro_pl.models.head import Head
from virnucpro_pl.models.weights.checkpoints import read_file
from virnucpro_pl.models.weights.head_bundle import HeadInfo, export_published, read_head_info, write_head
from virnucpro_pl.models.weights.head_source import HeadSource

INFO = HeadInfo(
    inputs="both",
    chunk_lengths=(150, 300),
    encoders={name: {"weights": "x", "sha256": {"a": name}, "width": 4} for name in ("dna_encoder", "protein_encoder")},
)


def test_what_is_known_of_a_head_travels_in_its_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    info = replace(INFO, threshold=0.7, tested={"150": {"auroc": 0.9}}, demo=True)
    path = write_head(tmp_path, Head(8, 5), info)
    (tmp_path / "head.json").unlink()  # for people only
    assert read_head_info(read_file(path), path) == info
    source = HeadSource(str(path))
    assert source.trained_inputs() == "both"
    assert source.domain_length() == 90
    for length in (150, 200, 300):
        source.check_chunk_length(length)
    with pytest.raises(UserError, match="trained on chunks of 150 to 300 nt"):
        source.check_chunk_length(500)


def test_published_files_tell_nothing(mini: Path) -> None:
    source = HeadSource(str(mini / "models" / "mlp" / "300_model.pth"))
    assert source.info() is None
    assert source.trained_inputs() is None
    assert source.domain_length() == 180


@pytest.mark.parametrize(
    "changes",
    [
        {"chunk_lengths": [300, 150]},
        {"chunk_lengths": [0, 10**12]},
        {"chunk_lengths": 5},
        {"inputs": "rna"},
        {"threshold": "high"},
        {"threshold": 2.0},
        {"encoders": []},
        {"encoders": {"dna_encoder": {"sha256": 5}}},
        {"tested": {"x": {}}},
        {"unknown": 1},
        {"format_version": 99},
    ],
)
def test_what_makes_no_sense_is_one_line(tmp_path: Path, changes: dict) -> None:
    path = write_head(tmp_path, Head(8, 5), INFO)
    content = json.loads((tmp_path / "head.json").read_text()) | changes
    save_file(read_file(path).tensors, path, {"virnucpro_head": json.dumps(content), "chunk_length": "300"})
    with pytest.raises(UserError) as error:
        HeadSource(str(path)).info()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"format_version": 1}', "[" * 9999, "\x00\x1b[2J"])
def test_hostile_texts_are_one_line(tmp_path: Path, text: str) -> None:
    path = write_head(tmp_path, Head(8, 5), INFO)
    save_file(read_file(path).tensors, path, {"virnucpro_head": text})
    with pytest.raises(UserError) as error:
        HeadSource(str(path)).info()
    assert str(error.value).isprintable()


def test_new_heads_are_drawn_as_published() -> None:
    torch.manual_seed(0)
    head = HeadSource(None, hidden_dim=400).new(600)
    bound = (6 / (600 + 400)) ** 0.5
    weight = head.hidden_layer.weight.detach()
    assert weight.abs().max() <= bound
    assert float(weight.std()) == pytest.approx(bound / 3**0.5, rel=0.02)
    with pytest.raises(UserError, match="give the file of a trained head"):
        HeadSource(None).load()


def test_the_published_script_reads_an_exported_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mini: Path
) -> None:
    class MLPClassifier(nn.Module):
        """As the published script has it."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.bn1(self.hidden_layer(x)))
            return self.output_layer(self.dropout(x))

    torch.manual_seed(1)
    head = Head(8, 5).eval()
    path = tmp_path / "300_model.pth"
    export_published(head, path)
    assert not hasattr(sys.modules["__main__"], "MLPClassifier")
    monkeypatch.setattr(sys.modules["__main__"], "MLPClassifier", MLPClassifier, raising=False)
    loaded = torch.load(io.BytesIO(path.read_bytes()), weights_only=False)
    embedding = torch.randn(7, 8)
    assert torch.equal(loaded(embedding), head(embedding))
    assert torch.equal(HeadSource(str(path)).load()(embedding), head(embedding))
    assert globals_of(path) == globals_of(mini / "models" / "mlp" / "300_model.pth")


def globals_of(path: Path) -> set[str]:
    """Classes and functions that a pickle names."""
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        return {str(arg) for opcode, arg, _ in pickletools.genops(archive.read(name)) if opcode.name == "GLOBAL"}
