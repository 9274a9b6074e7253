"""The ORF store: all data of the input that encoders and results need, in Arrow files.

A store is a folder of

- ``records.arrow``: name, description, sequence, chunks (number of), status; one row per input record;
- ``chunks.arrow``: record, number, start, end, orfs (number of), status; one row per chunk;
- ``orfs.arrow``: record, chunk, frame, nucleotides, protein; one row per ORF;
- ``duplicate_orfs.npy``, ``duplicate_proteins.npy``: rows that repeat an earlier one, and the first of their kind;
- ``duplicate_names.npy``: records that repeat an earlier name, and the number of the occurrence, from 2;
- ``manifest.json``: settings, inputs with their SHA-256, counts, size and SHA-256 of each file, and its own SHA-256;
- ``by_length-distinct`` or ``by_length-all``, written when they are first needed: the ORFs in the order of embedding,
  with their own manifest.

All rows are in input order, so the chunks of a record and the ORFs of a chunk are neighbours.
"""

import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from virnucpro_pl.errors import DamagedStoreError, UserError
from virnucpro_pl.files.digests import sha256_of, sha256_of_stream
from virnucpro_pl.files.durable import flush
from virnucpro_pl.host.stage_clock import StageClock
from virnucpro_pl.sequence.builder import StoreBuilder
from virnucpro_pl.sequence.layout import STATUSES, RaggedColumn, StoreSettings
from virnucpro_pl.sequence.length_order import LengthOrder, sort_by_length
from virnucpro_pl.sequence.seal import MANIFEST, BrokenSealError, check_seal, read_sealed
from virnucpro_pl.sequence.stored_array import StoredArray
from virnucpro_pl.sequence.streams import can_be_read_again, open_input

log = logging.getLogger(__name__)

_BUILDING = ".virnucpro-building-"
_ABANDONED_SECONDS = 24 * 3600
_BY_LENGTH = "by_length-"
_DAMAGED = ".damaged-"
_PREPARE_AGAIN = "a dataset cannot be rebuilt from what is left of it: run `prepare` again"

__all__ = [
    "STATUSES",
    "OrfStore",
    "RaggedColumn",
    "StoreSettings",
    "check_dataset",
    "check_store",
    "check_unchanged",
    "inputs_of",
    "prepare_store",
    "stored_at",
]


def prepare_store(inputs: list[str], folder: Path, settings: StoreSettings, clock: StageClock) -> Path:
    """Return the store of ``inputs`` in ``folder``; build it if it is missing.

    The input is read once, as a stream; the store appears under its key when it is complete.

    Raises:
        UserError: the input or a setting has a mistake.
    """
    settings.check()
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _clear_abandoned(folder)
        if all(map(can_be_read_again, inputs)) and any(folder.glob(f"*/{MANIFEST}")):
            existing = folder / settings.key(input_digests(inputs, folder))
            if existing.is_dir() and _is_intact(existing):
                return existing
        with tempfile.TemporaryDirectory(dir=folder, prefix=_BUILDING) as temporary:
            building = Path(temporary) / "store"
            building.mkdir()
            digests = StoreBuilder(building, settings, clock).build(inputs)
            return _publish(building, folder / settings.key(digests))


def stored_at(path: Path) -> bool:
    """Return whether a folder is a store, such as a dataset, intact or not."""
    try:
        return (path / "orfs.arrow").exists() or (path / "records.arrow").exists()
    except (OSError, ValueError):  # a path that is too long or holds NUL; opening it reports that
        return False


def inputs_of(folder: Path) -> list[str] | None:
    """Return the paths of the inputs of a store; None if the folder is no store.

    Raises:
        UserError: the manifest of the store is damaged.
    """
    if not stored_at(folder):
        return None
    try:
        return [source["path"] for source in read_sealed(folder / MANIFEST)["inputs"]]
    except BrokenSealError as error:
        raise UserError(f"{error}; {_PREPARE_AGAIN}") from error


def check_store(store: Path) -> None:
    """Raise BrokenSealError if a file of a store is missing or was changed."""
    check_seal(store)
    for order in sorted(store.glob(f"{_BY_LENGTH}*")):
        check_seal(order)


def check_unchanged(store: Path) -> None:
    """Raise DamagedStoreError if a file of the store of a run is missing or was changed."""
    try:
        check_store(store)
    except BrokenSealError as error:
        raise DamagedStoreError(
            f"{error}; this happened during the run, so its scores are not used and no result file is written"
        ) from error


def check_dataset(store: Path) -> None:
    """Check all files of a dataset, which cannot be built again; a damaged order of embedding is removed.

    Raises:
        UserError: a file is missing or was changed.
    """
    try:
        check_seal(store)
    except BrokenSealError as error:
        raise UserError(f"{error}; {_PREPARE_AGAIN}") from error
    for order in sorted(store.glob(f"{_BY_LENGTH}*")):
        try:
            check_seal(order)
        except BrokenSealError as error:
            log.warning("%s; %s is written again", error, order.name)
            with _explained(order):
                shutil.rmtree(order)


def _times_rebuilt(store: Path) -> int:
    return len([*store.parent.glob(f"{store.name}{_DAMAGED}*")])


def _clear_abandoned(folder: Path) -> None:
    """Remove the unfinished stores of killed processes; other processes may be building theirs."""
    for path in folder.glob(f"{_BUILDING}*"):
        with suppress(FileNotFoundError):  # another process has just finished it
            if time.time() - max(inner.stat().st_mtime for inner in (path, *path.glob("store/*"))) > _ABANDONED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def _is_intact(store: Path) -> bool:
    """Return whether a store is intact; set a damaged one aside."""
    try:
        check_store(store)
    except BrokenSealError as error:
        aside = store.with_name(f"{store.name}{_DAMAGED}{_times_rebuilt(store) + 1}")
        with suppress(FileNotFoundError):  # another process was faster
            store.rename(aside)
        log.warning("%s; the store is set aside as %s, and the input is read again", error, aside.name)
        return False
    return True


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Raise UserError for errors of the disk."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise UserError(f"{error.filename or folder}: {reason}; check free space and permissions") from error


def _publish(building: Path, store: Path) -> Path:
    """Rename a complete store, unless another process has just published the same one."""
    for path in (*building.iterdir(), building):
        flush(path)
    try:
        building.rename(store)
    except OSError:
        if not store.is_dir() or not _is_intact(store):
            building.rename(store)
    flush(store.parent)
    return store


def input_digests(inputs: list[str], folder: Path) -> list[str]:
    """Return the SHA-256 of inputs; unchanged files are looked up in the digest cache of the folder."""
    return [_digest(path, folder / "digests.json") for path in inputs]


def _digest(path: str, digest_cache: Path) -> str:
    if can_be_read_again(path):
        return sha256_of(Path(path), digest_cache)[Path(path).name]
    with open_input(path) as stream:
        return sha256_of_stream(stream)


class OrfStore:
    """A finished store.

    Instances are pickled as their path.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.manifest: dict[str, Any] = read_sealed(folder / MANIFEST)
        self.nucleotides = RaggedColumn(folder / "orfs.arrow", "nucleotides")
        self.proteins = RaggedColumn(folder / "orfs.arrow", "protein")

    def __reduce__(self) -> tuple[type["OrfStore"], tuple[Path]]:
        return OrfStore, (self.folder,)

    def times_rebuilt(self) -> int:
        """Return the number of damaged stores of this input that were set aside; scores of their ORFs may be wrong."""
        return _times_rebuilt(self.folder)

    @property
    def num_orfs(self) -> int:
        """Return the number of rows of ``orfs.arrow``, with repeated ORFs."""
        return len(self.nucleotides)

    def duplicate_orfs(self) -> StoredArray:
        """Return the ORFs that repeat an earlier one, ascending, with the row of the first, (M, 2) int64."""
        return StoredArray(self.folder / "duplicate_orfs.npy")

    def duplicate_proteins(self) -> StoredArray:
        """Return the ORFs with the protein of an earlier one, ascending, with the row of the first, (M, 2) int64."""
        return StoredArray(self.folder / "duplicate_proteins.npy")

    def by_length(self, deduplicate: bool) -> LengthOrder:
        """Return the ORFs in the order of embedding, which the first process writes into the folder of the store.

        Args:
            deduplicate: skip ORFs that repeat an earlier one, and put those of one protein side by side.

        Raises:
            UserError: the disk is full, or the folder is read-only.
        """
        repeats = (self.duplicate_orfs(), self.duplicate_proteins()) if deduplicate else None
        folder = self.folder / f"{_BY_LENGTH}{'distinct' if deduplicate else 'all'}"
        with _explained(folder):
            return sort_by_length(self.proteins, self.nucleotides, repeats, folder)
