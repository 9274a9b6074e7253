"""Where the encoders' weights come from: a path on disk or a pinned name on the hub."""

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import torch
from torch import nn

from virnucpro_pl.data.tokenizers import DnaTokenizer
from virnucpro_pl.errors import DownloadError, UserError, is_disk_full
from virnucpro_pl.files.digests import file_state
from virnucpro_pl.models.encoders.dnabert_s import DnabertS
from virnucpro_pl.models.encoders.esm2 import Esm2
from virnucpro_pl.models.weights.cache import files_folder, is_offline
from virnucpro_pl.models.weights.convert import load_dnabert_s, load_esm2
from virnucpro_pl.models.weights.converted import converted_folder, is_converted, read_converted, write_converted
from virnucpro_pl.models.weights.file_fetch import PICKLE_BEGINNINGS, fetch_file
from virnucpro_pl.models.weights.hub import fetch_snapshot, snapshot_on_disk
from virnucpro_pl.models.weights.reading_ahead import reading_ahead

log = logging.getLogger(__name__)

EncoderT = TypeVar("EncoderT", DnabertS, Esm2)


@dataclass(frozen=True)
class Pinned:
    """What is known of published weights, so that all fetch the same."""

    repository: str
    """OWNER/NAME, on the hub or on GitHub"""
    revision: str | None
    """Commit; other revisions are never fetched"""
    files: Sequence[str]
    """What is needed of it"""
    urls: Sequence[str] = field(default_factory=tuple)
    """Where they are had as one file, from a web server"""
    size: int | None = None
    """Bytes, nearly"""
    licence: str = "unknown"


@dataclass
class EncoderSource(Generic[EncoderT]):
    """One encoder's checkpoint."""

    weights: str
    """A path, or the name of a repository on the hub"""
    revision: str | None = None
    """Commit or branch on the hub; None for the pinned one, or the newest of a repository that is not pinned"""
    files: Sequence[str] | None = None
    """What is needed of it; None for what is pinned, or everything"""
    key: str = "model.encoder"
    """Where the configuration names this source, for messages"""
    pinned: Pinned | None = None
    """What is known of one repository"""
    offline: bool = False
    """Fetch nothing"""

    def locate(self) -> Path:
        """Return the file or folder on disk, fetching it where it is not.

        Raises:
            UserError: it is nowhere to be found.
        """
        return self.on_disk() or self._fetch()

    def on_disk(self) -> Path | None:
        """Return where it is on this machine, None where it is not; nothing is fetched."""
        if os.path.exists(self.weights):
            return Path(self.weights)
        if self.repository is None:
            return None
        imported = files_folder(self.repository, self._revision)
        if imported.is_dir() and all((imported / name).is_file() for name in self._files):
            return imported
        fetched = [imported / url.rpartition("/")[2] for url in self._urls]
        return snapshot_on_disk(self.repository, self._revision, self._files) or next(
            (file for file in fetched if file.is_file()), None
        )

    @property
    def repository(self) -> str | None:
        """Name on the hub, None of a path: anything that is not OWNER/NAME is a path that does not exist."""
        is_name = re.fullmatch(r"[\w.-]+/[\w.-]+", self.weights) and not self.weights.startswith(".")
        return self.weights if is_name else None

    @property
    def lock_name(self) -> str | None:
        """What ``weights.lock`` calls it; None of what its user has put where it is."""
        by_user = self.repository is None or os.path.exists(self.weights)
        return None if by_user else f"{self.repository}@{self._revision or 'main'}"

    @property
    def facts(self) -> Pinned | None:
        """What is known of these weights; None of others than the pinned ones."""
        return self.pinned if self.pinned and self.repository == self.pinned.repository else None

    @property
    def _revision(self) -> str | None:
        return self.revision or (self.facts.revision if self.facts else None)

    @property
    def _files(self) -> Sequence[str]:
        return self.files or (self.facts.files if self.facts else ())

    @property
    def _urls(self) -> Sequence[str]:
        return self.facts.urls if self.facts else ()

    def _fetch(self) -> Path:
        if self.repository is None:
            raise UserError(f"{self.key}.weights={self.weights}: no such file or folder; check the path")
        if self.offline or is_offline():
            why = "offline=true" if self.offline else "HF_HUB_OFFLINE is set"
            raise UserError(f"{self.key}.weights={self.weights}: not on this machine, and {why}; {self._by_hand()}")
        try:
            return fetch_snapshot(self.repository, self._revision, self._files)
        except (UserError, DownloadError):
            raise
        except Exception as error:  # the hub's, the network's, those of a page in place of an answer
            if is_disk_full(error):
                raise
            if self._urls:
                log.warning("%s is not to be had from the hub (%s)", self.repository, type(error).__name__)
                return fetch_file(self._urls, files_folder(self.repository, self._revision), PICKLE_BEGINNINGS)
            raise UserError(
                f"{self.key}.weights={self.weights}: not on this machine and not to be had from the hub"
                f" ({type(error).__name__}); {self._by_hand()}"
            ) from error

    def _by_hand(self) -> str:
        """Say how to do without fetching."""
        return (
            f"put {', '.join(self._files) or 'the files'} of revision {self._revision or 'main'} into a folder and give"
            f" {self.key}.weights=FOLDER"
        )

    def load(self) -> EncoderT:
        """Read the encoder in torch's default dtype onto its default device, from its conversion if there is one.

        Raises:
            UserError: there is no such checkpoint, it is damaged, or it holds weights that are not finite.
        """
        path = self.locate()
        converted = converted_folder(file_identities(path), torch.get_default_dtype())
        if is_converted(converted):
            with reading_ahead(converted):
                encoder = cast("EncoderT", read_converted(converted))
        else:
            with reading_ahead(path):
                encoder = self._read(path)
        _check_finite(encoder, path)
        return encoder

    def _read(self, path: Path) -> EncoderT:
        raise NotImplementedError

    def convert(self, dtype: torch.dtype) -> Path:
        """Convert the weights to safetensors of a dtype, unless they were before; return the folder.

        Raises:
            UserError: the weights cannot be read.
            OSError: there is no room.
        """
        path = self.locate()
        files = file_identities(path)
        folder = converted_folder(files, dtype)
        if not is_converted(folder):
            log.info("Converting %s to safetensors in %s, once", self.weights, str(dtype).removeprefix("torch."))
            default = torch.get_default_dtype()
            torch.set_default_dtype(dtype)
            try:
                with torch.device("cpu"):
                    write_converted(folder, self._read(path), {"weights": self.weights, "files": files})
            finally:
                torch.set_default_dtype(default)
        return folder

    def fingerprint(self) -> dict[str, Any]:
        """What tells this checkpoint from another without reading gigabytes: path, revision, sizes, times."""
        path = self.locate()
        return {"weights": self.weights, "path": str(path.resolve()), "files": file_identities(path)}


class DnabertSSource(EncoderSource[DnabertS]):
    """A DNABERT-S checkpoint folder and its tokenizer."""

    def _read(self, path: Path) -> DnabertS:
        return load_dnabert_s(self._checked(path))

    def tokenizer(self) -> DnaTokenizer:
        """Read the tokenizer; UserError when the folder holds none."""
        folder = self._checked(self.locate())
        if not (folder / "tokenizer.json").is_file():
            raise UserError(f"{folder}: tokenizer.json is missing; it comes with the DNABERT-S checkpoint")
        try:
            return DnaTokenizer(str(folder))
        except Exception as error:  # of whatever kind, from the libraries that parse the files
            raise UserError(
                f"{folder}: not a readable tokenizer ({' '.join(str(error).split())[:200]}); download tokenizer.json"
                " and tokenizer_config.json again"
            ) from error

    def _checked(self, folder: Path) -> Path:
        if not folder.is_dir():
            raise UserError(f"{self.key}.weights={self.weights}: give the checkpoint's folder, not a file in it")
        return folder


class Esm2Source(EncoderSource[Esm2]):
    """An ESM-2 checkpoint: a fair-esm file, a Hugging Face folder, or a model's name."""

    @property
    def repository(self) -> str | None:
        """Name on the hub; that of a bare model name is its authors'."""
        return f"facebook/{self.weights}" if self._is_bare_name else super().repository

    @property
    def _is_bare_name(self) -> bool:
        return re.fullmatch(r"esm2_t\d+_\w+_UR50[DS]", self.weights) is not None

    def on_disk(self) -> Path | None:
        """As for every encoder; a bare model name is also looked up where fair-esm keeps its downloads."""
        if self._is_bare_name and not os.path.exists(self.weights):
            file = Path(torch.hub.get_dir()) / "checkpoints" / f"{self.weights}.pt"
            if file.is_file():
                return file
        return super().on_disk()

    def _read(self, path: Path) -> Esm2:
        return load_esm2(path)


def read_tokenizer(source: DnabertSSource) -> DnaTokenizer:
    """Return the tokenizer of a DNA encoder."""
    return source.tokenizer()


def file_identities(path: Path) -> dict[str, list[int]]:
    """Return the state of a file, or of each file in a folder."""
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    return {file.name: file_state(file.stat()) for file in files}


def _check_finite(encoder: nn.Module, path: Path) -> None:
    """Raise UserError if a weight is NaN or infinite."""
    for name, tensor in encoder.state_dict().items():
        # Both are NaN where one number is; isfinite() takes ten times as long on the CPU.
        if tensor.is_floating_point() and tensor.numel() and not all(map(torch.isfinite, torch.aminmax(tensor))):
            hint = "" if tensor.dtype == torch.float32 else ", or give trainer.precision=32-true"
            kind = str(tensor.dtype).removeprefix("torch.")
            raise UserError(f"{path}: {name} holds NaN or infinite numbers as {kind}; copy the encoder again{hint}")
