"""Sources of the encoders: a path, or a pinned name on the hub."""

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
    """Facts about published weights, so that everybody downloads the same ones."""

    repository: str
    """OWNER/NAME on the hub or on GitHub"""
    revision: str | None
    """commit; other revisions are not downloaded"""
    files: Sequence[str]
    """names of the files"""
    urls: Sequence[str] = field(default_factory=tuple)
    """URLs of the weights as a single file"""
    size: int | None = None
    """approximate size in bytes"""
    licence: str = "unknown"


@dataclass
class EncoderSource(Generic[EncoderT]):
    """Checkpoint of an encoder."""

    weights: str
    """path, or name of a repository on the hub"""
    revision: str | None = None
    """commit or branch; None: the pinned one, or the newest of a repository that is not pinned"""
    files: Sequence[str] | None = None
    """names of the files; None: the pinned ones, or all"""
    key: str = "model.encoder"
    """key in the configuration, for messages"""
    pinned: Pinned | None = None
    """facts about the published weights"""
    offline: bool = False
    """download nothing"""

    def locate(self) -> Path:
        """Return the file or folder; download missing weights.

        Raises:
            UserError: the weights are missing.
        """
        return self.on_disk() or self._fetch()

    def on_disk(self) -> Path | None:
        """Return the file or folder, None if it is not on this machine."""
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
        """Return the name on the hub; None for a path, which is everything but OWNER/NAME."""
        is_name = re.fullmatch(r"[\w.-]+/[\w.-]+", self.weights) and not self.weights.startswith(".")
        return self.weights if is_name else None

    @property
    def lock_name(self) -> str | None:
        """Return the name in ``weights.lock``; None for files of the user."""
        by_user = self.repository is None or os.path.exists(self.weights)
        return None if by_user else f"{self.repository}@{self._revision or 'main'}"

    @property
    def facts(self) -> Pinned | None:
        """Return the facts about the weights; None unless they are the pinned ones."""
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
            raise UserError(f"{self.key}.weights={self.weights}: not on this machine, and {why}; {self._manual_way()}")
        try:
            return fetch_snapshot(self.repository, self._revision, self._files)
        except (UserError, DownloadError):
            raise
        except Exception as error:  # of the hub's client, the network, or an unexpected reply
            if is_disk_full(error):
                raise
            if self._urls:
                log.warning("%s cannot be downloaded from the hub (%s)", self.repository, type(error).__name__)
                return fetch_file(self._urls, files_folder(self.repository, self._revision), PICKLE_BEGINNINGS)
            raise UserError(
                f"{self.key}.weights={self.weights}: not on this machine, and the download from the hub failed"
                f" ({type(error).__name__}); {self._manual_way()}"
            ) from error

    def _manual_way(self) -> str:
        """Return advice for a manual download."""
        return (
            f"put {', '.join(self._files) or 'the files'} of revision {self._revision or 'main'} into a folder and give"
            f" {self.key}.weights=FOLDER"
        )

    def load(self) -> EncoderT:
        """Load the encoder in torch's default dtype onto its default device, from its conversion if there is one.

        Raises:
            UserError: the checkpoint is missing or damaged, or holds weights that are NaN or infinite.
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
        """Convert the weights to safetensors of a dtype, unless that was done before; return the folder.

        Raises:
            UserError: the weights cannot be read.
            OSError: the disk is full.
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
        """Return a quick fingerprint of the checkpoint: path, revision, sizes and times of its files."""
        path = self.locate()
        return {"weights": self.weights, "path": str(path.resolve()), "files": file_identities(path)}


class DnabertSSource(EncoderSource[DnabertS]):
    """A DNABERT-S checkpoint folder and its tokenizer."""

    def _read(self, path: Path) -> DnabertS:
        return load_dnabert_s(self._checked(path))

    def tokenizer(self) -> DnaTokenizer:
        """Load the tokenizer; raise UserError if the folder holds none."""
        folder = self._checked(self.locate())
        if not (folder / "tokenizer.json").is_file():
            raise UserError(f"{folder}: tokenizer.json is missing; it comes with the DNABERT-S checkpoint")
        try:
            return DnaTokenizer(str(folder))
        except Exception as error:  # of any kind, from the libraries that parse the files
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
        """Return the name on the hub; a bare model name belongs to its authors."""
        return f"facebook/{self.weights}" if self._is_bare_name else super().repository

    @property
    def _is_bare_name(self) -> bool:
        return re.fullmatch(r"esm2_t\d+_\w+_UR50[DS]", self.weights) is not None

    def on_disk(self) -> Path | None:
        """Return the file or folder; a bare model name is also looked up in fair-esm's downloads."""
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
        # NaN and infinity propagate; isfinite() takes ten times as long on the CPU.
        if tensor.is_floating_point() and tensor.numel() and not all(map(torch.isfinite, torch.aminmax(tensor))):
            hint = "" if tensor.dtype == torch.float32 else ", or give trainer.precision=32-true"
            kind = str(tensor.dtype).removeprefix("torch.")
            raise UserError(f"{path}: {name} holds NaN or infinite numbers as {kind}; copy the encoder again{hint}")
