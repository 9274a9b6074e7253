"""Reader of tables of calls from this program, the published script or its rewrite."""

import codecs
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv

from virnucpro_pl.errors import UserError, escaped
from virnucpro_pl.files.output_files import CONSENSUS_TABLE, ORF_TABLE, RECORD_TABLE
from virnucpro_pl.results.consensus import PUBLISHED_THRESHOLD
from virnucpro_pl.runs.fingerprint import THRESHOLD
from virnucpro_pl.runs.run_record import fingerprint_of, read_run_record
from virnucpro_pl.sequence.decompressed import open_decompressed

Mode = Literal["per-frame", "consensus", "record"]
_BLOCK_BYTES = 1 << 23
_MISSING = pa.array(["NA", ""])


class _Layout(NamedTuple):
    """File name and columns of the tables of a mode."""

    file: str
    id: str
    label: str
    others: str | None
    virus: str
    """columns of scores may be missing"""


_LAYOUTS: dict[Mode, _Layout] = {
    "per-frame": _Layout(ORF_TABLE, "Sequence_ID", "Prediction", "score1", "score2"),
    "consensus": _Layout(CONSENSUS_TABLE, "Modified_ID", "Is_Virus", "max_score_0", "max_score_1"),
    "record": _Layout(RECORD_TABLE, "sequence_id", "call", None, "max_virus_score"),
}
MODES = tuple(_LAYOUTS)


class CallTable(NamedTuple):
    """Calls of ORFs, chunks or records, in the order of their file."""

    path: Path
    ids: pa.Array
    """(N,) string"""
    labels: pa.Array
    """(N,) string"""
    others: NDArray[np.float64] | None
    """(N,) scores of ``others``, None without such a column"""
    virus: NDArray[np.float64] | None
    """(N,) scores of ``virus``, NaN where there is none; None without such a column"""
    fingerprint: dict[str, Any]
    """fingerprint of the run, empty without ``run.json``"""

    @property
    def threshold(self) -> float:
        """Return the score from which a chunk is viral."""
        return float(self.fingerprint.get(THRESHOLD) or PUBLISHED_THRESHOLD)

    def is_called(self) -> NDArray[np.bool_]:
        """Return which rows have a label, (N,)."""
        return ~pc.is_in(self.labels, _MISSING).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]

    def margins(self) -> NDArray[np.float64] | None:
        """Return the distance of the deciding score from the threshold, (N,), 0 to 1; None without scores."""
        if self.virus is None:
            return None
        decisive = self.virus if self.others is None else (self.virus - self.others + 1) / 2
        return np.abs(decisive - self.threshold)


def read_call_table(path: Path, mode: Mode, name: str) -> CallTable:
    """Read the table of a mode.

    Args:
        path: the file, or the folder of results; the published script writes into ``NAME_merged``.
        mode: kind of table.
        name: name of the setting.

    Raises:
        UserError: the table is missing, or is no table of this mode.
    """
    file = _find(path, mode, name)
    layout = _LAYOUTS[mode]
    table = _read(file, mode, name)
    columns = set(table.column_names)
    if not {layout.id, layout.label} <= columns:
        others = [other for other, one in _LAYOUTS.items() if {one.id, one.label} <= columns]
        advice = (
            f"give mode={others[0]}" if others else f"{mode} tables have the columns {layout.id} and {layout.label}"
        )
        raise UserError(f"{name}={path}: {file.name} is no {mode} table; {advice}")
    run = read_run_record(file.parent)
    ids, labels = (table.column(column).combine_chunks() for column in (layout.id, layout.label))
    return CallTable(
        file,
        ids if mode == "record" else _unquoted(ids),
        labels,
        _scores(table, layout.others, file, labels),
        _scores(table, layout.virus, file, labels),
        fingerprint_of(run, file.parent) if run else {},
    )


def _find(path: Path, mode: Mode, name: str) -> Path:
    if not path.exists():
        raise UserError(f"{name}={path} does not exist; give a folder of results, or a file in it")
    if not path.is_dir():
        return path
    wanted = _LAYOUTS[mode].file
    found = [path / wanted] if (path / wanted).is_file() else sorted(path.glob(f"*_merged/{wanted}"))
    if not found:
        raise UserError(f"{name}={path}: holds no {wanted}, which mode={mode} compares; give the file")
    if len(found) > 1:
        raise UserError(f"{name}={path} holds several {wanted}; give one, such as {found[0]}")
    return found[0]


def _read(file: Path, mode: Mode, name: str) -> pa.Table:
    """Read a table of text, plain or compressed, separated by tabs or commas."""
    layout = _LAYOUTS[mode]
    try:
        with open_decompressed(file) as stream:
            header = stream.readline(_BLOCK_BYTES)
            if header.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise UserError(f"{name}={file}: encoded as UTF-16; save it as UTF-8")
            if b"\r" in header.rstrip(b"\r\n"):
                raise UserError(f"{name}={file}: lines end with CR only; convert them: tr '\\r' '\\n' < FILE > NEW")
            repeated = {column for column in layout[1:] if _column_names(header).count(column or "") > 1}
            if repeated:
                raise UserError(f"{name}={file}: has the column {min(filter(None, repeated))} twice; remove one")
            if not stream.peek(1):  # the rewrite writes no header if there is no ORF
                columns = _column_names(header) if header.strip() else [layout.id, layout.label]
                return pa.table({column: pa.array([], pa.string()) for column in columns})
            return csv.read_csv(
                stream,
                csv.ReadOptions(block_size=_BLOCK_BYTES, column_names=_column_names(header)),
                csv.ParseOptions(delimiter=_delimiter(header), quote_char=False if b"\t" in header else '"'),
                csv.ConvertOptions(
                    include_columns=[column for column in _column_names(header) if column in layout[1:]] or None,
                    column_types={column: pa.string() for column in layout[1:] if column},
                    strings_can_be_null=False,
                ),
            )
    except (OSError, pa.ArrowException) as error:
        reason = escaped(" ".join(str(error).split()))
        raise UserError(f"{name}={file}: cannot be read as a table: {reason}") from error


def _delimiter(header: bytes) -> str:
    return "\t" if b"\t" in header else ","


def _column_names(header: bytes) -> list[str]:
    return header.decode("utf-8-sig", "replace").rstrip("\r\n").replace('"', "").split(_delimiter(header))


def _scores(table: pa.Table, column: str | None, file: Path, labels: pa.Array) -> NDArray[np.float64] | None:
    if column is None or column not in table.column_names:
        return None
    is_called = ~pc.is_in(labels, _MISSING).to_numpy(zero_copy_only=False)
    text = table.column(column).combine_chunks()
    text = pc.if_else(pc.is_in(text, _MISSING), None, text)
    try:
        scores: NDArray[np.float64] = pc.cast(text, pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid as error:
        raise UserError(f"{file}: column {column} holds something other than numbers: {escaped(str(error))}") from error
    if is_called.any() and not np.isfinite(scores[is_called]).any():
        raise UserError(
            f"{file}: column {column} holds no score of any called row, only NaN or NA; make the table again, or remove"
            " the column to compare labels only"
        )
    return np.where(np.isfinite(scores), scores, np.nan)


def _unquoted(ids: pa.Array) -> pa.Array:
    """Return ids without the quotes that pandas, which writes the published consensus, puts around ids with quotes."""
    quoted = pc.and_(pc.starts_with(ids, '"'), pc.ends_with(ids, '"'))
    if not pc.any(quoted).as_py():
        return ids
    inner = pc.replace_substring(pc.utf8_slice_codeunits(ids, 1, -1), '""', '"')
    doubled = pc.equal(pc.count_substring(pc.replace_substring(ids, '""', ""), '"'), 2)
    return pc.if_else(pc.and_(quoted, doubled), inner, ids)
