"""Order in which ORFs are embedded: longest first, ORFs with the same protein side by side."""

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from virnucpro_pl.sequence.row_sorter import RowSorter
from virnucpro_pl.sequence.seal import seal
from virnucpro_pl.sequence.stored_array import BLOCK_ROWS, StoredArray, create_array

LENGTHS = np.dtype([("residues", "<i4"), ("bases", "<i4"), ("shares_protein", "?")])
"""Lengths of an ORF; ``shares_protein``: it has the protein of the previous ORF"""


class LengthOrder(NamedTuple):
    """ORFs to embed, longest first."""

    rows: StoredArray
    """(U,) int64 rows of the ORF store"""
    lengths: StoredArray
    """(U,) LENGTHS of the ORFs"""


class Orfs(NamedTuple):
    """Some ORFs to embed, each after the first one with its protein, otherwise in the order of their rows."""

    rows: NDArray[np.int64]
    """(N,) rows of the ORF store"""
    lengths: NDArray[np.void]
    """(N,) LENGTHS"""
    first_bases: NDArray[np.int64]
    """(N,) bases of the first ORF with the protein"""


class Lengths(Protocol):
    """Lengths of a column of the store."""

    def __len__(self) -> int: ...

    def lengths(self, start: int, end: int) -> NDArray[np.int64]:
        """Return the lengths of some rows, (end - start,)."""


def sort_by_length(
    proteins: Lengths, nucleotides: Lengths, repeats: tuple[StoredArray, StoredArray] | None, folder: Path
) -> LengthOrder:
    """Return the order in ``folder``, which is created if it is missing, in constant memory.

    ORFs are sorted by residues, then by bases of the first ORF with their protein, both longest first, then by the row
    of that first ORF, then by their own. If several processes do this at once, each writes the same files, and one of
    them publishes its own.

    Args:
        proteins: residues of the ORFs.
        nucleotides: bases of the ORFs.
        repeats: ORFs that repeat an earlier one, which are skipped, and ORFs with the protein of an earlier one, each
            as (M, 2) row and first row, ascending; None: no deduplication.
        folder: folder of the order.
    """
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="sorting-") as temporary:
            made = Path(temporary) / folder.name
            made.mkdir()
            if repeats is None:
                _sort(lambda: _all_orfs(proteins, nucleotides), made)
            else:
                groups = _protein_groups(nucleotides, *repeats, Path(temporary))
                _sort(lambda: _distinct_orfs(proteins, nucleotides, repeats[1], groups), made)
            seal(made, {})
            try:
                made.rename(folder)
            except OSError:
                if not folder.exists():
                    raise
    return LengthOrder(StoredArray(folder / "rows.npy"), StoredArray(folder / "lengths.npy"))


def _row_blocks(
    proteins: Lengths, nucleotides: Lengths
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Yield consecutive rows with their residues and bases."""
    for start in range(0, len(proteins), BLOCK_ROWS):
        end = min(start + BLOCK_ROWS, len(proteins))
        yield np.arange(start, end), proteins.lengths(start, end), nucleotides.lengths(start, end)


def _all_orfs(proteins: Lengths, nucleotides: Lengths) -> Iterator[Orfs]:
    for rows, residues, bases in _row_blocks(proteins, nucleotides):
        yield Orfs(rows, _lengths(residues, bases, False), bases)


def _protein_groups(
    nucleotides: Lengths, duplicate_orfs: StoredArray, duplicate_proteins: StoredArray, folder: Path
) -> StoredArray:
    """Return the distinct ORFs with the protein of an earlier one, (K, 3): first ORF, row, bases.

    They ascend by first ORF, then by row.
    """
    groups = RowSorter(folder, columns=3)
    copies, repeats = _Ascending(duplicate_orfs), _Ascending(duplicate_proteins)
    for start in range(0, len(nucleotides), BLOCK_ROWS):
        end = min(start + BLOCK_ROWS, len(nucleotides))
        pairs = repeats.all_below(end)
        pairs = pairs[np.isin(pairs[:, 0], copies.all_below(end)[:, 0], assume_unique=True, invert=True)]
        if len(pairs):
            bases = nucleotides.lengths(start, end)[pairs[:, 0] - start]
            groups.add(np.column_stack([pairs[:, ::-1], bases]))
    groups.save(folder / "groups.npy")
    return StoredArray(folder / "groups.npy")


def _distinct_orfs(
    proteins: Lengths, nucleotides: Lengths, duplicate_proteins: StoredArray, groups: StoredArray
) -> Iterator[Orfs]:
    repeats, members = _Ascending(duplicate_proteins), _Ascending(groups)
    for rows, residues, bases in _row_blocks(proteins, nucleotides):
        start, end = int(rows[0]), int(rows[-1]) + 1
        firsts = np.delete(rows, repeats.all_below(end)[:, 0] - start)
        # The ORFs of one protein may not fit in memory, so they may come in several blocks.
        for group in members.below(end):
            done = int(np.searchsorted(firsts, group[-1, 0], side="right"))
            yield _beside_their_firsts(firsts[:done], group, start, residues, bases)
            firsts = firsts[done:]
        yield _beside_their_firsts(firsts, np.empty((0, 3), dtype=np.int64), start, residues, bases)


def _beside_their_firsts(
    firsts: NDArray[np.int64],
    group: NDArray[np.int64],
    start: int,
    residues: NDArray[np.int64],
    bases: NDArray[np.int64],
) -> Orfs:
    """Merge first ORFs and (K, 3) others of their proteins; ``residues`` and ``bases`` start at row ``start``."""
    first = np.concatenate([firsts, group[:, 0]])
    order = np.argsort(first, kind="stable")
    first = first[order] - start
    own_bases = np.concatenate([bases[firsts - start], group[:, 2]])[order]
    lengths = _lengths(residues[first], own_bases, order >= len(firsts))
    return Orfs(np.concatenate([firsts, group[:, 1]])[order], lengths, bases[first])


def _lengths(
    residues: NDArray[np.int64], bases: NDArray[np.int64], shares_protein: NDArray[np.bool_] | bool
) -> NDArray[np.void]:
    lengths = np.empty(len(residues), dtype=LENGTHS)
    lengths["residues"], lengths["bases"], lengths["shares_protein"] = residues, bases, shares_protein
    return lengths


class _Ascending:
    """Reader of the rows of an array that ascends by its first column."""

    def __init__(self, array: StoredArray):
        self._blocks = array.blocks()
        self._rest = array[:0]

    def below(self, border: int) -> Iterator[NDArray[np.int64]]:
        """Yield the next rows with a first column below ``border``, in blocks."""
        while True:
            if not len(self._rest):
                self._rest = next(self._blocks, self._rest)
            count = int(np.searchsorted(self._rest[:, 0], border))
            if not count:
                return
            yield self._rest[:count]
            self._rest = self._rest[count:]

    def all_below(self, border: int) -> NDArray[np.int64]:
        """Return the rows of ``below`` at once."""
        return np.concatenate([self._rest[:0], *self.below(border)])


def _sort(blocks: Callable[[], Iterator[Orfs]], folder: Path) -> None:
    """Write the files of an order by counting sort: there are few lengths, and ORFs of one length keep their order."""
    counts: Counter[int] = Counter()
    for orfs in blocks():
        keys, found = np.unique(_key(orfs), return_counts=True)
        counts.update(dict(zip(keys.tolist(), found.tolist(), strict=True)))
    lengths_there = np.array(sorted(counts), dtype=np.int64)
    sizes = np.array([counts[key] for key in lengths_there.tolist()], dtype=np.int64)
    positions = np.cumsum(sizes) - sizes
    with ExitStack() as stack:
        files = [
            stack.enter_context(_ArrayFile(folder / name, kind, counts.total()))
            for name, kind in (("rows.npy", np.dtype(np.int64)), ("lengths.npy", LENGTHS))
        ]
        for orfs in blocks():
            bucket = np.searchsorted(lengths_there, _key(orfs))
            order = np.argsort(bucket.astype(np.uint16) if len(positions) < 1 << 16 else bucket, kind="stable")
            ends = np.cumsum(np.bincount(bucket, minlength=len(positions)))
            starts = np.insert(ends[:-1], 0, 0)
            for number in np.flatnonzero(ends - starts).tolist():
                for file, values in zip(files, orfs[:2], strict=True):
                    file.write(positions[number], values[order[starts[number] : ends[number]]])
            positions += ends - starts


class _ArrayFile:
    """Array on disk that is written in pieces, in any order, and flushed when it is closed."""

    def __init__(self, path: Path, dtype: np.dtype[Any], length: int):
        self._itemsize = dtype.itemsize
        self._begin = create_array(path, dtype, (length,))
        self._stream = path.open("r+b")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._stream:
            self._stream.flush()
            os.fsync(self._stream.fileno())

    def write(self, place: int, values: NDArray[Any]) -> None:
        self._stream.seek(self._begin + int(place) * self._itemsize)
        self._stream.write(values.data)


def _key(orfs: Orfs) -> NDArray[np.int64]:
    """Return the sort key, smaller for longer ORFs."""
    return -(orfs.lengths["residues"].astype(np.int64) << 32 | orfs.first_bases)
