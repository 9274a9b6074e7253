"""Dataset: an ORF store of labelled fragments of genomes."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from virnucpro_pl.errors import UserError
from virnucpro_pl.files.file_names import open_arrow
from virnucpro_pl.files.output_files import DATASET_FILE, LABELS_FILE
from virnucpro_pl.sequence.layout import FORMAT_VERSION, RaggedColumn, TableReader
from virnucpro_pl.sequence.seal import read_sealed
from virnucpro_pl.sequence.store import OrfStore, check_dataset, stored_at

CLASSES = ("others", "virus")
"""Names of the classes, in the order of a head's outputs"""


class LabelledStore(OrfStore):
    """Dataset of ``prepare``, opened for reading.

    Args:
        folder: folder of the dataset.

    Raises:
        UserError: the folder holds no dataset, or a damaged one.
    """

    def __init__(self, folder: Path):
        _check_kind(folder)
        super().__init__(folder)
        if self.manifest.get("format_version") != FORMAT_VERSION:
            raise UserError(f"input={folder}: made by another version of this program; run `prepare` again")
        try:
            self.dataset: dict[str, Any] = read_sealed(folder / DATASET_FILE)
            self._table = pq.read_table(open_arrow(folder / LABELS_FILE))
            labels = self._table["label"].to_numpy()
            self.lengths: NDArray[np.int64] = self._table["length"].to_numpy().astype(np.int64)
            self.columns: list[str] = list(self.dataset["columns"])
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"input={folder}: its labels cannot be read ({reason}); run `prepare` again") from error
        if (
            len(labels) != self.manifest["records"]
            or self._table["label"].null_count
            or not np.isin(labels, (0, 1)).all()
        ):
            raise UserError(f"input={folder}: {LABELS_FILE} does not label every record; run `prepare` again")
        self.labels: NDArray[np.uint8] = labels.astype(np.uint8)
        """(R,) class of each record"""

    @classmethod
    def checked(cls, folder: Path) -> "LabelledStore":
        """Open a dataset after checking the digests of all its files.

        Raises:
            UserError: the folder holds no dataset, or a damaged one.
        """
        _check_kind(folder)
        check_dataset(folder)
        return cls(folder)

    def __reduce__(self) -> tuple[type["LabelledStore"], tuple[Path]]:
        return LabelledStore, (self.folder,)

    def column(self, name: str) -> NDArray[np.str_]:
        """Return a column of the table of genomes for each record, (R,); empty text for missing values."""
        return np.asarray(self._table[name].to_pylist(), dtype=np.str_)

    @cached_property
    def orf_records(self) -> NDArray[np.int64]:
        """Return the record of each ORF, (O,)."""
        batches = TableReader(self.folder / "orfs.arrow", "record").batches()
        return np.concatenate([np.empty(0, dtype=np.int64), *(batch.column("record").to_numpy() for batch in batches)])

    def record_name(self, record: int) -> str:
        """Return the name of a record."""
        names = RaggedColumn(self.folder / "records.arrow", "name")
        return names.take(np.array([record], dtype=np.int64))[0].decode(errors="replace")


def _check_kind(folder: Path) -> None:
    if not (stored_at(folder) and (folder / DATASET_FILE).is_file()):
        raise UserError(f"input={folder}: not a dataset; make one of labelled genomes with `prepare`")
