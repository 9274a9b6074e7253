"""The ORF store: everything the devices and the results need to know of the input, in Arrow files.

A store is a folder of

- ``records.arrow``: name, description, sequence, chunks (number of), status; one row per input record;
- ``chunks.arrow``: record, number, start, end, orfs (number of), status; one row per chunk;
- ``orfs.arrow``: record, chunk, frame, nucleotides, protein; one row per ORF;
- ``duplicate_orfs.npy``, ``duplicate_proteins.npy``: rows that repeat an earlier one, and the first of their kind;
- ``duplicate_names.npy``: records that repeat an earlier name, and which of its kind each is, from 2;
- ``manifest.json``: settings, inputs with their SHA-256, counts;
- ``by_length-distinct`` or ``by_length-all``, once they were needed: the ORFs in the order of embedding.

Rows are in input order throughout, so the chunks of a record and the ORFs of a chunk are neighbours.
"""

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from virnucpro_pl.digests import sha256_of, sha256_of_stream
from virnucpro_pl.durable import flush
from virnucpro_pl.errors import UserError
from virnucpro_pl.sequence.builder import StoreBuilder
from virnucpro_pl.sequence.layout import STATUSES, RaggedColumn, StoreSettings
from virnucpro_pl.sequence.length_order import LengthOrder, sort_by_length
from virnucpro_pl.sequence.stored_array import StoredArray
from virnucpro_pl.sequence.streams import open_input
from virnucpro_pl.stages import StageClock

log = logging.getLogger(__name__)

_BUILDING = "building-"
_ABANDONED_SECONDS = 24 * 3600

__all__ = ["STATUSES", "OrfStore", "RaggedColumn", "StoreSettings", "inputs_of", "prepare_store", "stored_at"]


def prepare_store(inputs: list[str], folder: Path, settings: StoreSettings, clock: StageClock) -> Path:
    """Return the store of ``inputs`` below ``folder``, building it unless it is there.

    The input is read once, as a stream; the store appears under its key when it is complete.

    Raises:
        UserError: the input or the settings are unusable.
    """
    settings.check()
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _clear_abandoned(folder)
        if all(Path(path).is_file() for path in inputs) and any(folder.glob("*/manifest.json")):
            known = folder / settings.key(input_digests(inputs, folder))
            if _is_whole(known):
                return known
        with tempfile.TemporaryDirectory(dir=folder, prefix=_BUILDING) as temporary:
            building = Path(temporary) / "store"
            building.mkdir()
            digests = StoreBuilder(building, settings, clock).build(inputs)
            return _publish(building, folder / settings.key(digests))


def stored_at(path: Path) -> bool:
    """Whether a folder is a finished store, such as a dataset."""
    return (path / "manifest.json").is_file() and (path / "orfs.arrow").is_file()


def inputs_of(folder: Path) -> list[str]:
    """Paths of what a store was made of, as they were called then."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return [source["path"] for source in manifest["inputs"]]


def _clear_abandoned(folder: Path) -> None:
    """Remove what was being built when its process was killed; others may be building beside."""
    for path in folder.glob(f"{_BUILDING}*"):
        with suppress(FileNotFoundError):  # another process is just done with it
            if time.time() - max(inner.stat().st_mtime for inner in (path, *path.glob("store/*"))) > _ABANDONED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def _is_whole(store: Path) -> bool:
    """Whether all files of a store are there in the sizes they were written in."""
    try:
        manifest = json.loads((store / "manifest.json").read_text())
    except FileNotFoundError:
        return False
    except ValueError:
        manifest = {}
    sizes = manifest.get("files", {"manifest": -1})
    if all((store / name).is_file() and (store / name).stat().st_size == size for name, size in sizes.items()):
        return True
    log.warning("%s: damaged; the input is read again", store)
    return False


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Say in one line what a disk refused."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise UserError(f"{error.filename or folder}: {reason}; is there space, may it be written?") from error


def _publish(building: Path, store: Path) -> Path:
    """Move a complete store to its place, unless another process has just put the same one there."""
    for path in (*building.iterdir(), building):
        flush(path)
    try:
        building.rename(store)
    except OSError:
        if not _is_whole(store):
            shutil.rmtree(store)
            building.rename(store)
    flush(store.parent)
    return store


def input_digests(inputs: list[str], folder: Path) -> list[str]:
    """SHA-256 of inputs; of a file that has not changed since it was last read for this folder, without reading."""
    return [_digest(path, folder / "digests.json") for path in inputs]


def _digest(path: str, memo: Path) -> str:
    if Path(path).is_file():
        return sha256_of(Path(path), memo)[Path(path).name]
    with open_input(path) as stream:
        return sha256_of_stream(stream)


class OrfStore:
    """A finished store; what is read of it stays in the system's cache, which all processes share.

    Instances travel to worker processes as the path alone.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
        self.nucleotides = RaggedColumn(folder / "orfs.arrow", "nucleotides")
        self.proteins = RaggedColumn(folder / "orfs.arrow", "protein")

    def __reduce__(self) -> tuple[type["OrfStore"], tuple[Path]]:
        return OrfStore, (self.folder,)

    @property
    def num_orfs(self) -> int:
        """Rows of ``orfs.arrow``, repeated ORFs included."""
        return len(self.nucleotides)

    def duplicate_orfs(self) -> StoredArray:
        """(M, 2) int64: the ORFs that repeat an earlier one, ascending, each with the row of the first."""
        return StoredArray(self.folder / "duplicate_orfs.npy")

    def duplicate_proteins(self) -> StoredArray:
        """(M, 2) int64: the ORFs whose protein an earlier one has, ascending, each with the row of the first."""
        return StoredArray(self.folder / "duplicate_proteins.npy")

    def by_length(self, deduplicate: bool) -> LengthOrder:
        """ORFs in the order of embedding, which the first process to ask for it leaves in the store's folder.

        Args:
            deduplicate: without the ORFs that repeat an earlier one, and with those of one protein side by side.

        Raises:
            UserError: the disk is full, or the folder may not be written.
        """
        repeats = (self.duplicate_orfs(), self.duplicate_proteins()) if deduplicate else None
        folder = self.folder / f"by_length-{'distinct' if deduplicate else 'all'}"
        with _explained(folder):
            return sort_by_length(self.proteins, self.nucleotides, repeats, folder)
