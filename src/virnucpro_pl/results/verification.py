"""Checks of a finished folder: checksums and numbers of rows."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from virnucpro_pl.files.digests import sha256_of
from virnucpro_pl.files.file_names import open_arrow
from virnucpro_pl.files.output_files import CHUNK_TABLE, CONSENSUS_TABLE, ORF_TABLE, RECORD_TABLE, VIRAL_FASTA
from virnucpro_pl.runs.record_types import RunRecord
from virnucpro_pl.sequence.streams import can_be_read_again

_BLOCK_BYTES = 1 << 20


def damage(folder: Path, run: RunRecord) -> Iterator[tuple[str, str | None]]:
    """Yield each result file with its damage, None if it is intact.

    Args:
        folder: output folder.
        run: its checked run record.
    """
    for name, written in run["files"].items():
        yield name, _damage(folder / name, written)


def _damage(file: Path, written: Mapping[str, Any]) -> str | None:
    try:
        if not file.is_file():
            return "is missing"
        if (size := file.stat().st_size) != written["bytes"]:
            return f"has {size:,} bytes and was written with {written['bytes']:,}"
        return None if sha256_of(file)[file.name] == written["sha256"] else "was changed: its SHA-256 differs"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def miscounts(folder: Path, run: RunRecord) -> Iterator[tuple[str, str]]:
    """Yield each result file whose number of rows differs from the run record."""
    counts = run["counts"]
    with_orf = counts.get("chunks_with_orf", counts["chunk_status"].get("called", 0))
    wanted: dict[str, tuple[Callable[[Path], int], int, str]] = {
        ORF_TABLE: (_lines_below_header, counts["orfs"], "ORFs"),
        CONSENSUS_TABLE: (
            _lines_below_header,
            with_orf,
            "chunks with an ORF",
        ),
        RECORD_TABLE: (_lines_below_header, counts["records"], "records"),
        CHUNK_TABLE: (lambda file: int(pq.read_metadata(open_arrow(file)).num_rows), counts["chunks"], "chunks"),
        VIRAL_FASTA: (_headers, counts["calls"]["records"]["virus"], "viral records"),
    }
    for name, (count, number, what) in wanted.items():
        try:
            found = count(folder / name)
        except (OSError, pa.ArrowException) as error:
            yield name, f"cannot be read ({' '.join(str(error).split())})"
        else:
            if found != number:
                yield name, f"has {found:,} rows, but run.json counts {number:,} {what}"


def _lines_below_header(file: Path) -> int:
    with file.open("rb") as stream:
        return max(0, sum(block.count(b"\n") for block in iter(lambda: stream.read(_BLOCK_BYTES), b"")) - 1)


def _headers(file: Path) -> int:
    with file.open("rb") as lines:
        return sum(line.startswith(b">") for line in lines)


def input_state(source: Mapping[str, Any]) -> str:
    """Return whether an input was changed since it was read, for information; the results do not need it."""
    path = Path(source["path"])
    try:
        if not can_be_read_again(source["path"]):
            return "not available"
        return "unchanged" if sha256_of(path)[path.name] == source["sha256"] else "changed since it was read"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
