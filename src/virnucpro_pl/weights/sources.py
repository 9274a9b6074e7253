"""Where the encoders' weights come from: a path on disk or a pinned name on the hub."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from virnucpro_pl.encoders.dnabert_s import DnabertS, DnaTokenizer
from virnucpro_pl.encoders.esm2 import Esm2
from virnucpro_pl.errors import UserError
from virnucpro_pl.weights.convert import load_dnabert_s, load_esm2

log = logging.getLogger(__name__)


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
        return self.on_disk() or self._fetch()

    def on_disk(self) -> Path | None:
        """Return where it is on this machine, None where it is not; nothing is fetched."""
        try:
            path = Path(self.weights).expanduser()
        except RuntimeError:  # ~USER, and there is no such user
            path = Path(self.weights)
        if path.exists():
            return path
        try:
            found = Path(self._snapshot(local_files_only=True)) if self.repository else None
        except (OSError, ValueError):  # not there, or no name the hub knows, which fetching it tells
            return None
        return found if found and all((found / name).exists() for name in self.files) else None

    @property
    def repository(self) -> str | None:
        """Name on the hub, None of a path: anything that is not OWNER/NAME is a path that does not exist."""
        is_name = re.fullmatch(r"[\w.-]+/[\w.-]+", self.weights) and not self.weights.startswith(".")
        return self.weights if is_name else None

    def _snapshot(self, local_files_only: bool = False) -> str:
        from huggingface_hub import snapshot_download  # not needed for weights on disk

        return snapshot_download(
            str(self.repository),
            revision=self.revision,
            allow_patterns=list(self.files) or None,
            local_files_only=local_files_only,
        )

    def _fetch(self) -> Path:
        if self.repository is None:
            raise UserError(f"{self.key}.weights={self.weights}: no such file or folder; check the path")
        log.info("Fetching %s (revision %s) from the hub", self.repository, self.revision or "main")
        try:
            return Path(self._snapshot())
        except Exception as error:  # the hub's, the network's, those of a page in place of an answer
            raise UserError(
                f"{self.key}.weights={self.weights}: not on this machine and not to be had from the hub"
                f" ({type(error).__name__}); put {', '.join(self.files) or 'the files'} of revision"
                f" {self.revision or 'main'} into a folder and give {self.key}.weights=FOLDER"
            ) from error

    def identity(self) -> dict[str, Any]:
        """What tells this checkpoint from another without reading gigabytes: path, revision, sizes, times."""
        path = self.locate()
        return {"weights": self.weights, "path": str(path.resolve()), "files": file_identities(path)}


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

    @property
    def repository(self) -> str | None:
        """Name on the hub; that of a bare model name is its authors'."""
        return f"facebook/{self.weights}" if self._is_bare_name else super().repository

    @property
    def _is_bare_name(self) -> bool:
        return re.fullmatch(r"esm2_t\d+_\w+_UR50[DS]", self.weights) is not None

    def on_disk(self) -> Path | None:
        """As for every encoder; a bare model name is also looked up where fair-esm keeps its downloads."""
        if self._is_bare_name and not Path(self.weights).exists():
            file = Path(torch.hub.get_dir()) / "checkpoints" / f"{self.weights}.pt"
            if file.is_file():
                return file
        return super().on_disk()

    def load(self) -> Esm2:
        """Read the encoder; UserError when the file holds none."""
        return load_esm2(self.locate())


def read_tokenizer(source: DnabertSSource) -> DnaTokenizer:
    """Return the tokenizer of a DNA encoder."""
    return source.tokenizer()


def file_identities(path: Path) -> dict[str, list[int]]:
    """Size and time of change (ns) of a file, or of each file in a folder."""
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    return {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in files}
