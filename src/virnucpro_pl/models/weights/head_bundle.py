"""Heads as this program keeps them, with what is known of them, and as the published script does."""

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
    """What a head is, so that nobody uses it for anything else without knowing."""

    inputs: Modality
    """Which embeddings it takes"""
    chunk_lengths: tuple[int, int]
    """Shortest and longest chunk (nt) it was trained on"""
    encoders: dict[str, Any]
    """``weights``, ``sha256`` of each file and ``width`` of ``dna_encoder`` and ``protein_encoder``, where used"""
    threshold: float = PUBLISHED_THRESHOLD
    """Chunk score from which a chunk is viral"""
    temperature: float = 1.0
    """What its logits were divided by, so that scores are probabilities; its weights contain it"""
    tested: dict[str, Any] = field(default_factory=dict)
    """Figures on held-out chunks, by their length (nt)"""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Figures on the validation part"""
    data: dict[str, Any] = field(default_factory=dict)
    """The dataset"""
    training: dict[str, Any] = field(default_factory=dict)
    """The recipe"""
    demo: bool = False
    """Whether its encoders are those of the demo model"""

    @property
    def known_lengths(self) -> tuple[int, ...]:
        """Chunk lengths (nt) it was trained or tested on."""
        return (*self.chunk_lengths, *map(int, self.tested))

    def digests(self, encoder: str) -> list[str] | None:
        """SHA-256 of the files of an encoder it was trained with, sorted; None for one it does not use."""
        return sorted(self.encoders[encoder]["sha256"].values()) if encoder in self.encoders else None


def write_head(folder: Path, head: Head, info: HeadInfo) -> Path:
    """Write ``head.safetensors`` and, for people, ``head.json``; return the former.

    Raises:
        OSError: they cannot be written.
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
    """Compare a head with the digest in its file, which only ``train`` and ``test`` write.

    Raises:
        UserError: the two differ.
    """
    if _KEY in checkpoint.metadata and checkpoint.metadata.get(_DIGEST) not in (None, _digest(checkpoint)):
        raise UserError(f"{path}: damaged: its SHA-256 is not the one it was written with; copy it again")


def _digest(head: Checkpoint) -> str:
    """Return the SHA-256 of names, types, shapes and values of the tensors, and of the description of the head."""
    digest = hashlib.sha256(f"{head.metadata.get('chunk_length')} {head.metadata[_KEY]}\n".encode())
    for name, tensor in sorted(head.tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_head_info(checkpoint: Checkpoint, path: Path) -> HeadInfo | None:
    """Return what a head's file says of it; None for one that ``train`` has not written.

    Raises:
        UserError: what it says makes no sense.
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
        raise UserError(f"{path}: what it says of itself is damaged ({reason}); copy it again") from error
    return info


def _check(info: HeadInfo) -> None:
    """Raise ValueError or TypeError for what no head can be."""
    shortest, longest = info.chunk_lengths
    lengths = [shortest, longest, *map(int, info.tested)]
    if not all(isinstance(length, int) and 0 < length <= _LONGEST_CHUNK for length in lengths) or shortest > longest:
        raise ValueError("chunk lengths that make no sense")
    if info.inputs not in get_args(Modality):
        raise ValueError("unknown inputs")
    if not (0 < float(info.threshold) < 1 and 0 < float(info.temperature) < float("inf")):
        raise ValueError("a threshold or temperature that makes no sense")
    for name in ("encoders", "tested", "metrics", "data", "training"):
        if not isinstance(getattr(info, name), dict):
            raise TypeError(f"{name} is no object")
    for encoder in info.encoders.values():
        if not (isinstance(encoder["sha256"], dict) and all(isinstance(d, str) for d in encoder["sha256"].values())):
            raise TypeError("digests that are none")


class _MLPClassifier(nn.Module):
    """The published head, as far as its pickle goes: the names of its parts are the format."""

    def __init__(self, head: Head):
        super().__init__()
        self.hidden_layer = head.hidden_layer
        self.bn1 = head.bn1
        self.dropout = head.dropout
        self.output_layer = head.output_layer


_MLPClassifier.__module__, _MLPClassifier.__qualname__ = "__main__", "MLPClassifier"


def export_published(head: Head, path: Path) -> None:
    """Write a head as the published script reads it: a whole module pickled as ``__main__.MLPClassifier``.

    Raises:
        OSError: it cannot be written.
    """
    main = sys.modules["__main__"]
    before = getattr(main, "MLPClassifier", None)
    main.MLPClassifier = _MLPClassifier  # type: ignore[attr-defined]  # pickle looks for the class where it says it is
    try:
        # Not straight to the file: torch reports a full disk without its errno.
        torch.save(_MLPClassifier(head.cpu().float()).eval(), content := io.BytesIO())
    finally:
        if before is None:
            del main.MLPClassifier
        else:
            main.MLPClassifier = before  # type: ignore[attr-defined]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        unfinished.write_bytes(content.getbuffer())
