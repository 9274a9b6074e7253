"""Annotated proteins of genomes, and the translated frames that are parts of them."""

import io
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ahocorasick
import numpy as np
from Bio import BiopythonWarning, SeqIO
from numpy.typing import NDArray

from virnucpro_pl.errors import UserError
from virnucpro_pl.sequence.decompressed import open_decompressed

_BETWEEN = "*"
"""Separator of proteins; frames hold no stop, so none spans two proteins"""


def annotated_proteins(path: Path) -> dict[str, str]:
    """Return the annotated proteins of each record of a GenBank file, joined by ``*``, by accession with version.

    Raises:
        UserError: the file cannot be read, or is no GenBank file.
    """
    try:
        proteins = {record.id: _BETWEEN.join(_translations(record)) for record in genbank_records(path)}
    except (OSError, EOFError, ValueError, UnicodeDecodeError) as error:
        if isinstance(error, UserError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not a readable GenBank file ({reason}); copy or download it again") from error
    if not proteins:
        raise UserError(f"{path}: holds no GenBank record; copy or download it again")
    return proteins


def genbank_records(path: Path) -> Iterator[Any]:
    """Yield the records of a GenBank file, plain or compressed, as Biopython's ``SeqRecord``.

    Raises:
        UserError: a record is truncated, or its length differs from its LOCUS line.
    """
    with open_decompressed(path) as binary, warnings.catch_warnings():
        stream = io.TextIOWrapper(binary, encoding="ascii", errors="strict")
        warnings.simplefilter("ignore", BiopythonWarning)  # odd locations and dates do not matter here
        for message in ("Premature end", "Expected sequence length"):
            warnings.filterwarnings("error", message, BiopythonWarning)
        try:
            yield from SeqIO.parse(stream, "genbank")  # type: ignore[no-untyped-call]
        except BiopythonWarning as error:
            reason = str(error).rstrip(".")
            raise UserError(f"{path}: incomplete or damaged ({reason}); copy or download it again") from error


def _translations(record: Any) -> Iterator[str]:
    for feature in record.features:
        if feature.type == "CDS":
            yield from feature.qualifiers.get("translation", ())


def are_annotated(frames: Sequence[bytes], proteins: str) -> NDArray[np.bool_]:
    """Return which of N translated frames are exact parts of annotated proteins, (N,).

    The automaton of Aho & Corasick (1975, doi:10.1145/360825.360855) finds all frames in one pass over the proteins.

    Args:
        frames: translated frames without stops, not empty.
        proteins: proteins joined by ``*``.

    >>> are_annotated([b"KV", b"VK", b"L"], "MKVL*K").tolist()
    [True, False, True]
    """
    found = np.zeros(len(frames), dtype=np.bool_)
    if not frames or not proteins:
        return found
    numbers: dict[str, list[int]] = {}
    for number, frame in enumerate(frames):
        numbers.setdefault(frame.decode("latin-1"), []).append(number)
    automaton = ahocorasick.Automaton()
    for frame_text in numbers:
        automaton.add_word(frame_text, frame_text)
    automaton.make_automaton()
    for _, frame_text in automaton.iter(proteins):
        for number in numbers.pop(frame_text, ()):
            found[number] = True
    return found
