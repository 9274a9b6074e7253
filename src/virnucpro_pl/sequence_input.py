"""Sequences of a program, in whatever form it has them, as a file that is read like any other."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from virnucpro_pl.errors import UserError, escaped
from virnucpro_pl.sequence.streams import STDIN

_SEQUENCE = re.compile(r"[A-Za-z*.\-]*", re.ASCII)
_NO_LETTERS = re.compile(r"\s")


def as_files(sequences: Any, folder: Path) -> tuple[list[str], list[str]]:
    """Return files that hold these sequences, written into a folder where they are none yet, and what to call them.

    Args:
        sequences: a path, or several; one sequence, or several; pairs of name and sequence, or a mapping; or records
            with ``id`` and ``seq``, such as Biopython's. Text is a path if a file of that name exists.
        folder: where sequences are written.

    Raises:
        UserError: something is neither a file that exists nor a sequence.
    """
    if isinstance(sequences, Path) or (isinstance(sequences, str) and Path(sequences).is_file()):
        return [str(sequences)], [str(sequences)]
    if isinstance(sequences, str):
        sequences = [sequences]
    if not isinstance(sequences, Iterable) or isinstance(sequences, bytes):
        raise UserError(f"sequences is a {type(sequences).__name__}; give a path, a sequence, or several")
    given = list(sequences.items() if isinstance(sequences, Mapping) else sequences)
    if given and all(isinstance(one, Path) or (isinstance(one, str) and Path(one).is_file()) for one in given):
        paths = [str(path) for path in given]
        return paths, paths
    file = folder / "sequences.fasta"
    with file.open("w", encoding="utf-8", newline="\n") as stream:
        for name, sequence in _named(given):
            stream.write(f">{name}\n{sequence}\n")
    return [str(file)], [STDIN]


def _named(given: Iterable[Any]) -> Iterator[tuple[str, str]]:
    for number, one in enumerate(given, start=1):
        match one:
            case str():
                name, sequence = f"sequence_{number}", one
            case (str(name), sequence):
                sequence = str(sequence)
            case _ if hasattr(one, "id") and hasattr(one, "seq"):
                name, sequence = str(one.id), str(one.seq)
            case _:
                raise UserError(
                    f"sequence {number} is a {type(one).__name__}; give text, a pair of name and sequence, or a record"
                    " with id and seq"
                )
        if not name or _NO_LETTERS.search(name):
            raise UserError(f"the name {escaped(name)!r} of sequence {number} is empty or has blanks in it")
        if not _SEQUENCE.fullmatch(sequence):
            raise UserError(f"sequence {number}, {escaped(sequence[:40])!r}, is no sequence, nor a file that exists")
        yield name, sequence
