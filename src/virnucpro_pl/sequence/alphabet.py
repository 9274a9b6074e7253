"""Letters that are no nucleotides: their counts and the position of the first one."""

from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from virnucpro_pl.errors import UserError, escaped

Alphabet = Literal["iupac", "any"]
TOLERATED_SHARE = 0.001
"""Share of other letters above which a record is not called, and an input gets a warning"""
REFUSED_SHARE = 0.5
"""Share of other letters above which an input is refused"""
_SHOWN_LETTERS = 8
_NUCLEOTIDES = b"ACGTUNRYSWKMBDHV"
_GAPS = b"-.*"
"""Gaps of alignments; ``*`` pads the sequences of assemblies in ACE"""
_PLAIN = _NUCLEOTIDES + _NUCLEOTIDES.lower() + _GAPS + b" \t\n"
_IS_ODD = np.ones(256, dtype=np.bool_)
_IS_ODD[[*_PLAIN]] = False


class OddLetter(NamedTuple):
    """First letter of an input that is no nucleotide."""

    record: int
    """number of the record in the file, from 1"""
    name: str
    """name of the record"""
    line: int | None
    """number of the line, from 1; None in formats without lines"""


def check_alphabet(alphabet: str) -> None:
    """Raise UserError for an unknown alphabet."""
    if alphabet not in get_args(Alphabet):
        raise UserError(f"data.alphabet={alphabet}: choose one of {', '.join(get_args(Alphabet))}")


def odd_letters(letters: bytes) -> bytes:
    """Return the letters that are neither IUPAC nucleotides, nor gaps, nor blanks.

    >>> odd_letters(b"ACgt Nn-QE1")
    b'QE1'
    """
    return letters.translate(None, _PLAIN)


def find_odd_letter(text: bytes) -> int:
    """Return the position of the first letter that :func:`odd_letters` returns; there must be one."""
    return int(_IS_ODD[np.frombuffer(text, dtype=np.uint8)].argmax())


def count_odd_letters(letters: bytes, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the letters of each record that are no nucleotides.

    Args:
        letters: letters of all records, end to end, without blanks.
        lengths: (N,) letters of each record.
    """
    total = np.zeros(len(letters) + 1, dtype=np.int64)
    np.cumsum(_IS_ODD[np.frombuffer(letters, dtype=np.uint8)], out=total[1:])
    ends = np.cumsum(lengths)
    return total[ends] - total[ends - lengths]  # type: ignore[no-any-return]


def are_no_nucleotides(odd: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which records hold too many other letters to be called."""
    return odd > TOLERATED_SHARE * lengths


class LetterCounts:
    """Counts of the letters of one input."""

    def __init__(self) -> None:
        self._letters = 0
        self._odd = 0
        self._kinds: dict[int, None] = {}
        self._records = 0
        self.first: OddLetter | None = None
        """First letter that is no nucleotide"""

    def add(self, letters: bytes, lengths: NDArray[np.int64], odd: NDArray[np.int64] | None) -> None:
        """Count the letters of some records.

        Args:
            letters: letters of the records, end to end.
            lengths: (N,) number of letters of each record.
            odd: (N,) number of letters of each record that are no nucleotides; None if there are none.
        """
        self._letters += len(letters)
        if odd is None:
            return
        self._odd += int(odd.sum())
        self._records += int(np.count_nonzero(are_no_nucleotides(odd, lengths)))
        if len(self._kinds) < _SHOWN_LETTERS:
            self._kinds |= dict.fromkeys(odd_letters(letters))

    def check(self, name: str, remedy: str = "") -> None:
        """Refuse an input that consists of other letters.

        Args:
            name: name of the input in messages.
            remedy: advice for reading it nevertheless.

        Raises:
            UserError: more than half of the letters are no nucleotides.
        """
        if self._odd > REFUSED_SHARE * self._letters:
            raise UserError(f"{name}: {odd_text(self.as_dict())}; give nucleotide sequences{remedy}")

    def as_dict(self) -> dict[str, Any]:
        """Return the counts for ``run.json``."""
        found: dict[str, Any] = {"letters": self._letters}
        if self._odd:
            shown = [escaped(chr(kind)) for kind in [*self._kinds][:_SHOWN_LETTERS]]
            first = self.first._asdict() if self.first else {}
            found["no_nucleotides"] = {"letters": self._odd, "records": self._records, "kinds": shown, "first": first}
        return found


def is_worth_a_warning(source: dict[str, Any]) -> bool:
    """Return whether an input holds many other letters, or records that are not called because of them."""
    odd = source["no_nucleotides"]
    return bool(odd["records"]) or odd["letters"] > TOLERATED_SHARE * source["letters"]


def odd_text(source: dict[str, Any]) -> str:
    """Describe the letters of an input that are no nucleotides, from its counts in ``run.json``."""
    odd = source["no_nucleotides"]
    first = odd["first"]
    line = f"line {first['line']:,}, " if first["line"] else ""
    more = ", …" if len(odd["kinds"]) == _SHOWN_LETTERS else ""
    return (
        f"{odd['letters']:,} of {source['letters']:,} letters ({odd['letters'] / source['letters']:.2%}) are no"
        f" nucleotides ({' '.join(odd['kinds'])}{more}), the first of them in {line}record {first['record']:,}"
        f" ({first['name']})"
    )
