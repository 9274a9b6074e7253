"""Head files: safetensors with a description of the head, and the published format."""

import hashlib
import io
import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors.torch import save_file
from torch import nn

from virnucpro_pl.data.batch import Modality
from virnucpro_pl.errors import UserError, escaped
from virnucpro_pl.files.durable import replacing, write_text
from virnucpro_pl.files.output_files import HEAD_FILE, INFO_FILE
from virnucpro_pl.models.head import Head
from virnucpro_pl.models.weights.checkpoints import Checkpoint

FORMAT_VERSION = 1
PUBLISHED_THRESHOLD = 0.5
_KEY, _DIGEST = "virnucpro_head", "sha256"
_LONGEST_CHUNK = 1_000_000


@dataclass(frozen=True)
class HeadInfo:
    """Description of a head, with which its use is checked."""

    inputs: Modality
    """modality"""
    chunk_lengths: tuple[int, int]
    """shortest and longest chunk of training in nt"""
    encoders: dict[str, Any]
    """``weights``, ``sha256`` of each file and ``width`` of the encoders in use"""
    threshold: float = PUBLISHED_THRESHOLD
    """score from which a chunk is viral"""
    temperature: float = 1.0
    """divisor of the logits for calibration, which is part of the weights"""
    tested: dict[str, Any] = field(default_factory=dict)
    """metrics of the test split, by chunk length in nt"""
    metrics: dict[str, Any] = field(default_factory=dict)
    """metrics of the validation split"""
    data: dict[str, Any] = field(default_factory=dict)
    """dataset"""
    training: dict[str, Any] = field(default_factory=dict)
    """settings of training"""
    demo: bool = False
    """its encoders are those of the demo model"""

    @property
    def known_lengths(self) -> tuple[int, ...]:
        """Return the chunk lengths of training and test in nt."""
        return (*self.chunk_lengths, *map(int, self.tested))

    def digests(self, encoder: str) -> list[str] | None:
        """Return the SHA-256 of the files of an encoder, sorted; None for an encoder that is not used."""
        return sorted(self.encoders[encoder]["sha256"].values()) if encoder in self.encoders else None


def write_head(folder: Path, head: Head, info: HeadInfo) -> Path:
    """Write ``head.safetensors`` and ``head.json``, for information; return the path of the former.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = {"format_version": FORMAT_VERSION, **asdict(info)}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in head.state_dict().items()}
    metadata = {"chunk_length": str(info.chunk_lengths[1]), _KEY: json.dumps(content)}
    metadata[_DIGEST] = _digest(Checkpoint(tensors, metadata))
    with replacing(folder / HEAD_FILE) as unfinished:
        save_file(tensors, unfinished, metadata)
    write_text(folder / INFO_FILE, json.dumps(content, indent=2) + "\n")
    return folder / HEAD_FILE


def check_digest(checkpoint: Checkpoint, path: Path) -> None:
    """Raise UserError if a head differs from the digest in its file, which ``train`` and ``test`` write."""
    if _KEY in checkpoint.metadata and checkpoint.metadata.get(_DIGEST) not in (None, _digest(checkpoint)):
        raise UserError(f"{path}: damaged: its SHA-256 differs from the one in the file; copy it again")


def _digest(head: Checkpoint) -> str:
    """Return the SHA-256 of the tensors (names, types, shapes, values) and of the description."""
    digest = hashlib.sha256(f"{head.metadata.get('chunk_length')} {head.metadata[_KEY]}\n".encode())
    for name, tensor in sorted(head.tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_head_info(checkpoint: Checkpoint, path: Path) -> HeadInfo | None:
    """Return the description in the file of a head; None for a head that ``train`` has not written.

    Raises:
        UserError: the description is damaged.
    """
    text = checkpoint.metadata.get(_KEY)
    if text is None:
        return None
    try:
        content = json.loads(text)
        version = content.pop("format_version")
        if version != FORMAT_VERSION:
            raise UserError(
                f"{path}: a head of format {escaped(str(version))[:20]}; this program reads {FORMAT_VERSION}"
            )
        info = HeadInfo(**{**content, "chunk_lengths": tuple(content["chunk_lengths"])})
        _check(info)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        reason = escaped(" ".join(str(error).split()))[:100]
        raise UserError(f"{path}: its description is damaged ({reason}); copy it again") from error
    return info


def _check(info: HeadInfo) -> None:
    """Raise ValueError or TypeError for impossible values."""
    shortest, longest = info.chunk_lengths
    lengths = [shortest, longest, *map(int, info.tested)]
    if not all(isinstance(length, int) and 0 < length <= _LONGEST_CHUNK for length in lengths) or shortest > longest:
        raise ValueError("impossible chunk lengths")
    if info.inputs not in get_args(Modality):
        raise ValueError("unknown inputs")
    if not (0 < float(info.threshold) < 1 and 0 < float(info.temperature) < float("inf")):
        raise ValueError("impossible threshold or temperature")
    for name in ("encoders", "tested", "metrics", "data", "training"):
        if not isinstance(getattr(info, name), dict):
            raise TypeError(f"{name} is no object")
    for encoder in info.encoders.values():
        if not (isinstance(encoder["sha256"], dict) and all(isinstance(d, str) for d in encoder["sha256"].values())):
            raise TypeError("digests that are none")


class _MLPClassifier(nn.Module):
    """Module with the attribute names of the published pickle."""

    def __init__(self, head: Head):
        super().__init__()
        self.hidden_layer = head.hidden_layer
        self.bn1 = head.bn1
        self.dropout = head.dropout
        self.output_layer = head.output_layer


_MLPClassifier.__module__, _MLPClassifier.__qualname__ = "__main__", "MLPClassifier"


def export_published(head: Head, path: Path) -> None:
    """Write a head in the published format: a module pickled as ``__main__.MLPClassifier``.

    Raises:
        OSError: the file cannot be written.
    """
    main = sys.modules["__main__"]
    before = getattr(main, "MLPClassifier", None)
    main.MLPClassifier = _MLPClassifier  # type: ignore[attr-defined]  # pickle looks the class up
    try:
        # Not directly to the file: torch reports a full disk without errno.
        torch.save(_MLPClassifier(head.cpu().float()).eval(), content := io.BytesIO())
    finally:
        if before is None:
            del main.MLPClassifier
        else:
            main.MLPClassifier = before  # type: ignore[attr-defined]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        unfinished.write_bytes(content.getbuffer())
