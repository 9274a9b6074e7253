"""Source of a head, and the checks of its use."""

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from virnucpro_pl.data.batch import Modality
from virnucpro_pl.errors import DownloadError, UserError, escaped
from virnucpro_pl.models.head import Head
from virnucpro_pl.models.weights.cache import files_folder, is_offline
from virnucpro_pl.models.weights.checkpoints import Checkpoint, read_file
from virnucpro_pl.models.weights.convert import load_head
from virnucpro_pl.models.weights.file_fetch import PICKLE_BEGINNINGS, fetch_file
from virnucpro_pl.models.weights.head_bundle import HeadInfo, check_digest, read_head_info
from virnucpro_pl.models.weights.sources import Pinned, file_identities

_DOMAIN_SHARE = 0.6
_PUBLISHED_HEAD = re.compile(r"^(\d+)_model(_|\.|$)")


@dataclass
class HeadSource:
    """A trained head, or the settings of a new one."""

    weights: str | None
    """file of ``train``, published ``.pth``, state dict or safetensors; None: a new head"""
    chunk_length: int | None = None
    """chunk length of training in nt, if the file does not state it"""
    any_chunk_length: bool = False
    """allow other chunk lengths"""
    any_encoder: bool = False
    """allow other encoders"""
    hidden_dim: int = 512
    """width of the hidden layer of a new head"""
    dropout: float = 0.5
    """dropout of the hidden layer in training"""
    pinned: Pinned | None = None
    """published head, which is downloaded if there is no file of its name, first from the mirror ``HF_ENDPOINT``"""
    offline: bool = False
    """download nothing"""

    def read(self) -> Checkpoint:
        """Read the file; download a missing published head.

        Raises:
            UserError: the head is missing, unreadable or damaged.
        """
        path = self.locate()
        checkpoint = read_file(path)
        check_digest(checkpoint, path)
        return checkpoint

    def locate(self) -> Path:
        """Return the path of the file; download a missing published head.

        Raises:
            UserError: the head is missing.
        """
        name = self._name
        if self.path.is_file() or not (self.path.name == name and _PUBLISHED_HEAD.match(name)):
            return self.path
        facts = self.facts
        if facts and facts.urls and not (self.offline or is_offline()):
            try:
                return fetch_file(self._addresses(facts), self._fetched(facts).parent, PICKLE_BEGINNINGS)
            except DownloadError as error:
                raise UserError(f"{self._where_to_get_it(name)} ({error})") from error
        raise UserError(self._where_to_get_it(name))

    def _where_to_get_it(self, name: str) -> str:
        repository = self.pinned.repository if self.pinned else "Li-Jing-1997/VirNucPro"
        return (
            f"model.head.weights={name}: no such file in {Path.cwd()}; take it from the published"
            f" repository, {repository}, and give model.head.weights=PATH"
        )

    def on_disk(self) -> Path | None:
        """Return the path of the file, None if it is not on this machine."""
        return self.path if self.path.is_file() else None

    @property
    def facts(self) -> Pinned | None:
        """Return the facts about a published head; None for other heads and files of the user."""
        is_published = self.pinned is not None and [self.weights] == list(self.pinned.files)
        return self.pinned if is_published and not Path(self._name).exists() else None

    @property
    def lock_name(self) -> str | None:
        """Return the name in ``weights.lock``; None for files of the user."""
        return f"{self.facts.repository}@{self.facts.revision}" if self.facts else None

    def _addresses(self, facts: Pinned) -> list[str]:
        mirror = os.environ.get("HF_ENDPOINT", "").rstrip("/")
        path = f"{facts.repository}/resolve/{facts.revision}/{self._name}"
        return [*([f"{mirror}/{path}"] if mirror else []), *facts.urls]

    def _fetched(self, facts: Pinned) -> Path:
        return files_folder(facts.repository, facts.revision) / self._name

    @property
    def _name(self) -> str:
        if self.weights is None:
            raise UserError("model.head.weights: give the file of a trained head")
        return self.weights

    @property
    def path(self) -> Path:
        """Return the path in the settings, or that of the download of a published head."""
        fetched = self._fetched(self.facts) if self.facts else None
        return fetched if fetched and fetched.is_file() else Path(self._name)

    def load(self) -> Head:
        """Read the head.

        Raises:
            UserError: the file holds no head, or weights that are NaN or infinite.
        """
        head = load_head(self.read(), self.path)
        for name, tensor in head.state_dict().items():
            if not torch.isfinite(tensor).all():
                raise UserError(
                    f"{self.path}: {name} holds NaN or infinite numbers; copy the head again, or train another one"
                )
        head.dropout.p = self.dropout
        return head

    def new(self, num_inputs: int) -> Head:
        """Return an untrained head, initialised as published (Glorot & Bengio 2010)."""
        head = Head(num_inputs, self.hidden_dim, dropout=self.dropout)
        for layer in (head.hidden_layer, head.output_layer):
            nn.init.xavier_uniform_(layer.weight)
        return head

    def info(self) -> HeadInfo | None:
        """Return the description that ``train`` has written; None for other heads.

        Raises:
            UserError: the file is missing, unreadable or damaged.
        """
        return read_head_info(self.read(), self.path)

    def trained_chunk_length(self) -> int | None:
        """Return the chunk length of training in nt, from the file, its published name, or the settings."""
        found = self.read().metadata.get("chunk_length")
        if found is None and (match := _PUBLISHED_HEAD.match(self.path.name)):
            found = match[1]
        if found is not None and not str(found).isdecimal():
            raise UserError(f"model.head.weights={self.weights}: its chunk_length is {found!r} and should be a number")
        return self.chunk_length if found is None else int(found)

    def trained_inputs(self) -> Modality | None:
        """Return the modality of training; None if the file does not state it, as published ones."""
        if self.facts and self.on_disk() is None:
            return None
        info = self.info()
        return info.inputs if info else None

    def check_chunk_length(self, chunk_length: int) -> None:
        """Refuse another chunk length than that of the head.

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
        """Check that the head scores whole chunks by their nucleotides alone.

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
        """Compare the encoders in use with those of training.

        Args:
            digests: SHA-256 of the files of ``dna_encoder`` and ``protein_encoder``, sorted.

        Returns:
            A warning if they differ and ``any_encoder`` is set, otherwise None.

        Raises:
            UserError: they differ, and ``any_encoder`` is not set.
        """
        info = self.info()
        others = [name for name in info.encoders if digests.get(name) != info.digests(name)] if info else []
        if not others or info is None:
            return None
        name = others[0]
        text = f"{self.weights} was trained with another {name} ({escaped(str(info.encoders[name]['weights']))})"
        if self.any_encoder:
            return f"the head {text}; its scores mean nothing unless the two are equivalent"
        raise UserError(
            f"model.head.weights={text}; give model.{name}.weights as it was trained with, or"
            " model.head.any_encoder=true"
        )

    def domain_length(self) -> int:
        """Return 0.6 of the shortest chunk length of training and test in nt, 0 if unknown."""
        info = self.info()
        shortest = min(info.known_lengths) if info else self.trained_chunk_length()
        return 0 if shortest is None else math.ceil(_DOMAIN_SHARE * shortest)

    def fingerprint(self) -> dict[str, Any]:
        """Return the fingerprint of the head; raise UserError if the file is missing or unreadable."""
        self.read()
        return {"weights": self.weights, "path": str(self.path.resolve()), "files": file_identities(self.path)}


def check_widths(dna: int, protein: int, head: Head, source: HeadSource) -> None:
    """Raise UserError if the head does not fit the widths of the embeddings."""
    if dna + protein != head.num_inputs:
        raise UserError(
            f"model.head.weights={source.weights} takes {head.num_inputs} numbers, but the encoders give"
            f" {dna} (DNA) + {protein} (protein) = {dna + protein}; choose a head trained with these encoders"
        )
