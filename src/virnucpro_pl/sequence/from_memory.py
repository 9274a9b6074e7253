"""Sequences of the Python interface, written to files for the readers."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from virnucpro_pl.errors import UserError, escaped
from virnucpro_pl.sequence.streams import STDIN

_NUCLEOTIDES = re.compile(r"(?!-$)[ACGTURYSWKMBDHVNX*-]*", re.ASCII | re.IGNORECASE)
_LETTERS = re.compile(r"[A-Z*-]*|[ACGTURYSWKMBDHVNX*.-]*", re.ASCII | re.IGNORECASE)
_BLANK = re.compile(r"\s")


def as_files(sequences: Any, folder: Path) -> tuple[list[str], list[str]]:
    """Return the files of sequences, and their names in the results; sequences in memory are written to a file.

    Args:
        sequences: one or several paths; one or several sequences; pairs of name and sequence, or a mapping; or records
            with ``id`` and ``seq``, such as Biopython's. Text is a path if a file of this name exists, or if it holds
            other letters than those of nucleotides.
        folder: folder of the written file.

    Raises:
        UserError: a file is missing, or an item is neither a path nor a sequence.
    """
    if isinstance(sequences, str | Path) or _is_one(sequences):
        sequences = [sequences]
    if not isinstance(sequences, Iterable) or isinstance(sequences, bytes):
        raise UserError(f"sequences is a {type(sequences).__name__}; give a path, a sequence, or several")
    given = list(sequences.items() if isinstance(sequences, Mapping) else sequences)
    if any(map(_is_path, given)):
        for one in given:
            _check_file(one)
        paths = ["./-" if str(path) == STDIN else str(path) for path in given]  # a file, not standard input
        return paths, paths
    file = folder / "sequences.fasta"
    with file.open("w", encoding="utf-8", newline="\n") as stream:
        for name, sequence in _named(given):
            stream.write(f">{name}\n{sequence}\n")
    return [str(file)], [STDIN]


def _is_one(sequences: Any) -> bool:
    """Return whether an object is a single record or sequence; those of Biopython can be iterated, too."""
    return hasattr(sequences, "seq") or hasattr(sequences, "reverse_complement")


def _is_path(one: Any) -> bool:
    if isinstance(one, Path):
        return True
    return isinstance(one, str) and (os.path.lexists(one) or _NUCLEOTIDES.fullmatch(one) is None)


def _check_file(one: Any) -> None:
    """Raise UserError unless an object is the path of a file."""
    if not isinstance(one, str | Path):
        raise UserError(f"a {type(one).__name__} among paths; give paths only, or sequences only")
    shown = escaped(str(one)[:200])
    if os.path.isdir(one):  # noqa: PTH112 - Path raises for names that are too long
        raise UserError(f"{shown}: a folder; give the files in it")
    if not os.path.exists(one):
        raise UserError(f"{shown}: no such file, nor a sequence of nucleotides; check the path")


def _named(given: Iterable[Any]) -> Iterator[tuple[str, str]]:
    for number, one in enumerate(given, start=1):
        match one:
            case str():
                name, sequence = f"sequence_{number}", one
            case (str(name), sequence) if _is_text(sequence):
                sequence = _text_of(sequence, number)
            case _ if isinstance(getattr(one, "id", None), str) and _is_text(getattr(one, "seq", None)):
                name, sequence = one.id, _text_of(one.seq, number)
            case _ if not hasattr(one, "seq") and _is_one(one):
                name, sequence = f"sequence_{number}", _text_of(one, number)
            case _:
                raise UserError(
                    f"sequence {number} is {escaped(repr(one))[:60]}; give text, a pair of name and sequence, or a"
                    " record with id and seq"
                )
        if not name or _BLANK.search(name):
            raise UserError(f"the name {escaped(name)!r} of sequence {number} is empty or has blanks in it")
        if not name.isprintable() and _is_undecodable(name):
            raise UserError(f"the name {escaped(name)!r} of sequence {number} is no text; give one in Unicode")
        if not _LETTERS.fullmatch(sequence):
            raise UserError(
                f"sequence {number}, {escaped(sequence[:40])!r}, is no sequence; give paths of files by themselves"
            )
        yield name, sequence


def _is_text(sequence: Any) -> bool:
    """Return whether an object is a sequence, not a missing value or a number."""
    return sequence is not None and not isinstance(sequence, bool | int | float | bytes | np.generic)


def _text_of(sequence: Any, number: int) -> str:
    try:
        return str(sequence)
    except ValueError as error:  # Biopython's, for a sequence with length but without letters
        raise UserError(f"sequence {number}: {escaped(str(error))}; give its letters") from error


def _is_undecodable(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text)
