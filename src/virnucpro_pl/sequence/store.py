"""The ORF store: everything the devices and the results need to know of the input, in memory-mapped Arrow files.

A store is a folder of

- ``records.arrow``: name, description, sequence, chunks (number of), status; one row per input record;
- ``chunks.arrow``: record, number, start, end, orfs (number of), status; one row per chunk;
- ``orfs.arrow``: record, chunk, frame, nucleotides, protein; one row per ORF;
- ``duplicate_orfs.npy``, ``duplicate_proteins.npy``, ``duplicate_names.npy``: rows that repeat an earlier one;
- ``manifest.json``: settings, inputs with their SHA-256, counts.

Rows are in input order throughout, so the chunks of a record and the ORFs of a chunk are neighbours.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virnucpro_pl.digests import sha256_of, sha256_of_stream
from virnucpro_pl.errors import UserError
from virnucpro_pl.sequence.builder import StoreBuilder
from virnucpro_pl.sequence.layout import STATUSES, RaggedColumn, StoreSettings, read_table
from virnucpro_pl.sequence.streams import open_input
from virnucpro_pl.stages import StageClock

__all__ = ["STATUSES", "OrfStore", "RaggedColumn", "StoreSettings", "prepare_store", "read_table"]


def prepare_store(inputs: list[str], folder: Path, settings: StoreSettings, clock: StageClock) -> Path:
    """Return the store of ``inputs`` below ``folder``, building it unless it is there.

    The input is read once, as a stream; the store appears under its key when it is complete.

    Raises:
        UserError: the input or the settings are unusable.
    """
    settings.check()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if all(Path(path).is_file() for path in inputs) and any(folder.glob("*/manifest.json")):
            known = folder / settings.key(input_digests(inputs, folder))
            if (known / "manifest.json").exists():
                return known
        with tempfile.TemporaryDirectory(dir=folder, prefix="building-") as temporary:
            building = Path(temporary) / "store"
            building.mkdir()
            digests = StoreBuilder(building, settings, clock).build(inputs)
            return _publish(building, folder / settings.key(digests))
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise UserError(f"{error.filename or folder}: {reason}; is there space, may it be written?") from error


def _publish(building: Path, store: Path) -> Path:
    """Move a complete store to its place, unless another process has just put the same one there."""
    try:
        building.rename(store)
    except OSError:
        if not (store / "manifest.json").exists():
            shutil.rmtree(store)
            building.rename(store)
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
    """A finished store, memory-mapped: every process that opens it shares the same pages.

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

    def duplicate_orfs(self) -> NDArray[np.int64]:
        """(M, 2): the ORFs that repeat an earlier one, ascending, each with the row of the first."""
        return np.load(self.folder / "duplicate_orfs.npy")  # type: ignore[no-any-return]

    def duplicate_proteins(self) -> NDArray[np.int64]:
        """(M, 2): the ORFs whose protein an earlier one has, ascending, each with the row of the first."""
        return np.load(self.folder / "duplicate_proteins.npy")  # type: ignore[no-any-return]
