"""Where each model's weights come from: a path on disk or a pinned name on the hub."""

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from virnucpro_pl.encoders.dnabert_s import DnabertS, DnaTokenizer
from virnucpro_pl.encoders.esm2 import Esm2
from virnucpro_pl.errors import UserError, escaped
from virnucpro_pl.head import Head, Inputs
from virnucpro_pl.weights.checkpoints import Checkpoint, read_file
from virnucpro_pl.weights.convert import load_dnabert_s, load_esm2, load_head
from virnucpro_pl.weights.head_bundle import HeadInfo, read_head_info

log = logging.getLogger(__name__)

_DOMAIN_SHARE = 0.6
_PUBLISHED_HEAD = re.compile(r"^(\d+)_model(_|\.|$)")


@dataclass
class EncoderSource:
    """One encoder's checkpoint."""

    weights: str
    """A path, or the name of a repository on the hub"""
    revision: str | None = None
    """Commit of the repository; other revisions are never fetched"""
    files: Sequence[str] = field(default_factory=tuple)
    """What is needed of the repository"""
    key: str = "model.encoder"
    """Where the configuration names this source, for messages"""

    def locate(self) -> Path:
        """Return the file or folder on disk, fetching it from the hub where it is not.

        Raises:
            UserError: it is nowhere to be found.
        """
        try:
            path = Path(self.weights).expanduser()
        except RuntimeError:  # ~USER, and there is no such user
            path = Path(self.weights)
        return path if path.exists() else self._fetch()

    def _fetch(self) -> Path:
        # Anything that is not OWNER/NAME is a path that does not exist.
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", self.weights) or self.weights.startswith("."):
            raise UserError(f"{self.key}.weights={self.weights}: no such file or folder; check the path")
        from huggingface_hub import snapshot_download  # not needed for weights on disk

        fetch = partial(
            snapshot_download, self.weights, revision=self.revision, allow_patterns=list(self.files) or None
        )
        try:
            try:
                found = Path(fetch(local_files_only=True))
                if all((found / name).exists() for name in self.files):
                    return found
            except OSError:
                log.info("Fetching %s (revision %s) from the hub", self.weights, self.revision or "main")
            return Path(fetch())
        except Exception as error:  # the hub's, the network's, those of a page in place of an answer
            raise UserError(
                f"{self.key}.weights={self.weights}: not on this machine and not to be had from the hub"
                f" ({type(error).__name__}); put {', '.join(self.files) or 'the files'} of revision"
                f" {self.revision or 'main'} into a folder and give {self.key}.weights=FOLDER"
            ) from error

    def identity(self) -> dict[str, Any]:
        """What tells this checkpoint from another without reading gigabytes: path, revision, sizes, times."""
        path = self.locate()
        return {"weights": self.weights, "path": str(path.resolve()), "files": _file_identities(path)}


class DnabertSSource(EncoderSource):
    """A DNABERT-S checkpoint folder and its tokenizer."""

    def load(self) -> DnabertS:
        """Read the encoder; UserError when the folder holds none."""
        return load_dnabert_s(self._folder())

    def tokenizer(self) -> DnaTokenizer:
        """Read the tokenizer; UserError when the folder holds none."""
        folder = self._folder()
        if not (folder / "tokenizer.json").is_file():
            raise UserError(f"{folder}: tokenizer.json is missing; it comes with the DNABERT-S checkpoint")
        try:
            return DnaTokenizer(str(folder))
        except Exception as error:  # of whatever kind, from the libraries that parse the files
            raise UserError(
                f"{folder}: not a readable tokenizer ({' '.join(str(error).split())[:200]}); download tokenizer.json"
                " and tokenizer_config.json again"
            ) from error

    def _folder(self) -> Path:
        folder = self.locate()
        if not folder.is_dir():
            raise UserError(f"{self.key}.weights={self.weights}: give the checkpoint's folder, not a file in it")
        return folder


class Esm2Source(EncoderSource):
    """An ESM-2 checkpoint: a fair-esm file, a Hugging Face folder, or a model's name."""

    def locate(self) -> Path:
        """As for every encoder; a bare model name is looked up where fair-esm keeps its downloads, then on the hub."""
        if re.fullmatch(r"esm2_t\d+_\w+_UR50[DS]", self.weights) and not Path(self.weights).exists():
            if (file := Path(torch.hub.get_dir()) / "checkpoints" / f"{self.weights}.pt").is_file():
                return file
            return EncoderSource(f"facebook/{self.weights}", self.revision, self.files, self.key)._fetch()
        return super().locate()

    def load(self) -> Esm2:
        """Read the encoder; UserError when the file holds none."""
        return load_esm2(self.locate())


@dataclass
class HeadSource:
    """A trained head and the chunk length it was trained for, or what a new one is to be."""

    weights: str | None
    """What ``train`` has written, a published ``.pth``, a state dict, or safetensors; None for a new head"""
    chunk_length: int | None = None
    """Chunk length (nt) it was trained for, where the file does not tell"""
    any_chunk_length: bool = False
    """Allow other chunk lengths"""
    any_encoder: bool = False
    """Allow other encoders"""
    hidden_dim: int = 512
    """Width of the hidden layer of a new head"""
    dropout: float = 0.5
    """Share of the hidden layer's outputs that training leaves out"""

    def read(self) -> Checkpoint:
        """Read the file; UserError when it is missing or unreadable."""
        name = self._name
        if not self.path.is_file() and self.path.name == name and _PUBLISHED_HEAD.match(name):
            raise UserError(
                f"model.head.weights={name}: no such file in {Path.cwd()}; take it from the published"
                " repository, Li-Jing-1997/VirNucPro, and give model.head.weights=PATH"
            )
        return read_file(self.path)

    @property
    def _name(self) -> str:
        if self.weights is None:
            raise UserError("model.head.weights: give the file of a trained head")
        return self.weights

    @property
    def path(self) -> Path:
        """The file on disk."""
        return Path(self._name).expanduser()

    def load(self) -> Head:
        """Read the head; UserError when the file holds none."""
        head = load_head(self.read(), self.path)
        head.dropout.p = self.dropout
        return head

    def new(self, num_inputs: int) -> Head:
        """Return a head that has learned nothing, its weights drawn as published (Glorot & Bengio 2010).

        Raises:
            UserError: its sizes make no sense.
        """
        if self.hidden_dim < 1:
            raise UserError(f"model.head.hidden_dim={self.hidden_dim}: give a number above 0; 512 is the published one")
        if not 0 <= self.dropout < 1:
            raise UserError(
                f"model.head.dropout={self.dropout}: give a share from 0 to below 1; 0.5 is the published one"
            )
        head = Head(num_inputs, self.hidden_dim, dropout=self.dropout)
        for layer in (head.hidden_layer, head.output_layer):
            nn.init.xavier_uniform_(layer.weight)
        return head

    def info(self) -> HeadInfo | None:
        """What ``train`` has noted of the head; None for others.

        Raises:
            UserError: the file is missing, unreadable or damaged.
        """
        return read_head_info(self.read(), self.path)

    def trained_chunk_length(self) -> int | None:
        """Chunk length the head was trained for: told by the file, by its published name, or by the configuration."""
        told = self.read().metadata.get("chunk_length")
        if told is None and (match := _PUBLISHED_HEAD.match(self.path.name)):
            told = match[1]
        if told is not None and not str(told).isdecimal():
            raise UserError(f"model.head.weights={self.weights}: its chunk_length is {told!r} and should be a number")
        return self.chunk_length if told is None else int(told)

    def trained_inputs(self) -> Inputs | None:
        """Which embeddings the head was trained on; None where the file does not tell."""
        info = self.info()
        return info.inputs if info else None

    def check_chunk_length(self, chunk_length: int) -> None:
        """Refuse a chunk length other than the head's.

        Raises:
            UserError: the lengths differ and ``any_chunk_length`` is off.
        """
        trained, info = self.trained_chunk_length(), self.info()
        shortest = info.chunk_lengths[0] if info else trained
        if trained is None or shortest is None or shortest <= chunk_length <= trained or self.any_chunk_length:
            return
        length = f"{trained}" if shortest == trained else f"{shortest} to {trained}"
        raise UserError(
            f"model.head.weights={self.weights} was trained on chunks of {length} nt, but data.chunk_length="
            f"{chunk_length}; use data.chunk_length={trained}, another head, or model.head.any_chunk_length=true"
        )

    def check_fallback(self) -> None:
        """Make sure that the head scores whole chunks by their nucleotides alone.

        Raises:
            UserError: it does not.
        """
        info = self.info()
        if info is None or info.inputs != "dna" or info.data.get("rule") != "chunks":
            raise UserError(
                f"model.fallback_head={self.weights}: not a head for whole chunks; train one with `prepare"
                " data.rule=chunks` and `train model.inputs=dna`"
            )

    def check_encoders(self, digests: dict[str, list[str]]) -> str | None:
        """Compare the encoders in use with those the head was trained with.

        Args:
            digests: SHA-256 of the files of ``dna_encoder`` and ``protein_encoder``, sorted.

        Returns:
            a warning where they differ and ``any_encoder`` allows it, else None.

        Raises:
            UserError: they differ, and it does not.
        """
        info = self.info()
        others = [name for name in info.encoders if digests.get(name) != info.digests(name)] if info else []
        if not others or info is None:
            return None
        name = others[0]
        text = f"{self.weights} was trained with another {name} ({escaped(str(info.encoders[name]['weights']))})"
        if self.any_encoder:
            return f"the head {text}; its scores mean nothing unless the two are alike"
        raise UserError(
            f"model.head.weights={text}; give model.{name}.weights as it was trained with, or"
            " model.head.any_encoder=true"
        )

    def domain_length(self) -> int:
        """Shortest record (nt) the head knows anything of: 0.6 of the shortest chunks it was trained or tested on.

        0 where nobody knows.
        """
        info = self.info()
        known = min(info.known_lengths) if info else self.trained_chunk_length()
        return 0 if known is None else math.ceil(_DOMAIN_SHARE * known)

    def identity(self) -> dict[str, Any]:
        """What tells this head from another; UserError when the file is missing or unreadable."""
        self.read()
        return {"weights": self.weights, "path": str(self.path.resolve()), "files": _file_identities(self.path)}


def check_widths(dna: int, protein: int, head: Head, source: HeadSource) -> None:
    """Raise UserError when the head does not fit embeddings of these widths."""
    if dna + protein != head.num_inputs:
        raise UserError(
            f"model.head.weights={source.weights} takes {head.num_inputs} numbers, but the encoders give"
            f" {dna} (DNA) + {protein} (protein) = {dna + protein}; choose a head trained with these encoders"
        )


def _file_identities(path: Path) -> dict[str, list[int]]:
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    return {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in files}


def read_tokenizer(source: DnabertSSource) -> DnaTokenizer:
    """Return the tokenizer of a DNA encoder."""
    return source.tokenizer()
