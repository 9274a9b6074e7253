"""Columns of the result tables, declared once for writers, readers, checks and documentation."""

from typing import NamedTuple

import pyarrow as pa

from virnucpro_pl.sequence.translation import FRAMES

_TEXT, _WHOLE, _REAL = pa.string(), pa.int64(), pa.float64()


class Column(NamedTuple):
    """Column of a result table."""

    name: str
    type: pa.DataType
    meaning: str
    may_be_missing: bool = False
    """``NA`` in a text table and null in Parquet mean that there is no value; in other columns ``NA`` is text"""


RECORD_COLUMNS = (
    Column("record", _WHOLE, "number of the sequence in the input, from 1"),
    Column(
        "sequence_id", _TEXT, "first word of the header; mates get `/1` and `/2`, repeated names `_dup2`, `_dup3`, …"
    ),
    Column("length", _WHOLE, "bases"),
    Column("chunks", _WHOLE, "chunks of the sequence"),
    Column("called_chunks", _WHOLE, "chunks with an ORF, or called by a fallback head"),
    Column("viral_chunks", _WHOLE, "called chunks that are viral"),
    Column("viral_chunk_fraction", _REAL, "viral chunks among called chunks", True),
    Column("orfs", _WHOLE, "frames without stop codon over all chunks"),
    Column("viral_orfs", _WHOLE, "ORFs whose virus score is above the threshold"),
    Column("max_virus_score", _REAL, "highest virus score in the sequence, 0 to 1; not a probability", True),
    Column("call", _TEXT, "`virus`, `others` or `ambiguous` (only with `results.tie=ambiguous`)", True),
    Column("status", _TEXT, "`called`, or the [reason](#statuses) why there is no call"),
    Column("dna_only_chunks", _WHOLE, "chunks that a fallback head called"),
    Column("out_of_domain", _TEXT, "`yes`: shorter than 0.6 of the shortest chunks of training or test; `no`", True),
    Column("file", _TEXT, "input file, `-` for standard input"),
)
CHUNK_COLUMNS = (
    Column("record", _WHOLE, "number of the sequence, as in `sequences.tsv`"),
    Column("sequence_id", _TEXT, "name of the sequence, as in `sequences.tsv`"),
    Column("chunk_id", _TEXT, "`NAME_chunk_N`, N from 1, as in the published tables"),
    Column("start", _WHOLE, "first base in the sequence, counted from 0"),
    Column("end", _WHOLE, "one past the last base, as in BED"),
    Column("orfs", pa.uint8(), "frames without stop codon"),
    Column("viral_orfs", pa.uint8(), "viral ORFs"),
    Column("max_virus_score", pa.float32(), "highest virus score of the ORFs", True),
    Column("max_others_score", pa.float32(), "highest other score of the ORFs", True),
    Column("call", _TEXT, "`virus`, `others` or `ambiguous`", True),
    Column("status", _TEXT, "`called`, or the [reason](#statuses) why there is no call"),
    *(Column(f"virus_score_{frame}", pa.float32(), f"virus score of frame {frame}", True) for frame in FRAMES),
)
ORF_COLUMNS = (
    Column("Sequence_ID", _TEXT, "chunk id and frame"),
    Column("Prediction", _TEXT, "`virus` or `others`"),
    Column("score1", pa.float32(), "score of others"),
    Column("score2", pa.float32(), "score of virus"),
)
CONSENSUS_COLUMNS = (
    Column("Modified_ID", _TEXT, "chunk id"),
    Column("Is_Virus", _TEXT, "`True` or `False`"),
    Column("max_score_0", pa.float32(), "highest score of others"),
    Column("max_score_1", pa.float32(), "highest score of virus"),
)


def names(columns: tuple[Column, ...]) -> list[str]:
    """Return the names of columns."""
    return [column.name for column in columns]


def schema(columns: tuple[Column, ...]) -> pa.Schema:
    """Return the Arrow schema of columns."""
    return pa.schema([(column.name, column.type) for column in columns])


def markdown(columns: tuple[Column, ...]) -> str:
    """Return the table of columns for the documentation."""
    kinds = {_TEXT: "text", _WHOLE: "integer", pa.uint8(): "integer"}
    rows = [f"| `{column.name}` | {kinds.get(column.type, 'number')} | {column.meaning} |" for column in columns]
    return "\n".join(["| column | type | meaning |", "|---|---|---|", *rows])
