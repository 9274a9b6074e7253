"""Standard genetic code as byte tables, for both strands and for ambiguous letters.

Each position of a text gets the *codon number* of the three letters that begin there. A number stands for a pair of
residues: on the forward and on the reverse strand.
"""

import numpy as np
from numpy.typing import NDArray

_BASES = "TCAG"
_CODE = "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG"  # NCBI table 1, bases in TCAG order
_OTHER = 4  # digit of letters other than A, C, G, T; numbers have base five
_UNKNOWN, _FIRST_AMBIGUOUS = 124, 125
# IUPAC letters as sets of bases: bit 0 is A, 1 is C, 2 is G, 3 is T.
_IUPAC = dict(zip("ACGTRYSWKMBDHVN", (1, 2, 4, 8, 5, 10, 6, 9, 12, 3, 14, 13, 11, 7, 15), strict=True))

NO_RESIDUE = b"\0"
FORWARD_STOP, REVERSE_STOP, FORWARD_RESIDUE, REVERSE_RESIDUE = 1, 2, 4, 8
SEEN_BITS = 4


def number_codons(
    letters: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64], resolve: bool
) -> tuple[bytes, NDArray[np.bool_]]:
    """Return the codon number at each position of texts that lie end to end.

    Args:
        letters: texts in upper case; with ``resolve``, IUPAC letters.
        starts: (C,) first letter of each text.
        ends: (C,) one past the last letter of each text; codons do not cross it.
        resolve: give codons with ambiguous letters their own numbers instead of that of unknown codons.

    Returns:
        The codon number at each position, and which texts have letters other than A, C, G, T, (C,).
    """
    digits = np.frombuffer(letters.translate(_DIGIT), dtype=np.uint8)
    has_other = np.maximum.reduceat(digits, starts) == _OTHER
    numbers = np.full(len(digits), _UNKNOWN, dtype=np.uint8)
    codons = numbers[:-2]
    np.add(digits[:-2] * np.uint8(25) + digits[1:-1] * np.uint8(5), digits[2:], out=codons)
    if resolve and has_other.any():
        sets = np.frombuffer(letters.translate(_BASE_SET), dtype=np.uint8).astype(np.uint16)
        unknown = np.flatnonzero(np.frombuffer(codons.tobytes().translate(SEEN), dtype=np.uint8) == 0)
        codons[unknown] = _AMBIGUOUS_NUMBER[sets[unknown] << 8 | sets[unknown + 1] << 4 | sets[unknown + 2]]
    numbers[ends - 1] = numbers[ends - 2] = _UNKNOWN
    return numbers.tobytes(), has_other


def _byte_table(changes: dict[str, str | int], default: int | None = None) -> bytes:
    """Return a table for ``bytes.translate``, the same for lower-case and upper-case letters."""
    table = bytearray(range(256)).upper() if default is None else bytearray([default]) * 256
    for letter, value in changes.items():
        table[ord(letter)] = table[ord(letter.lower())] = ord(value) if isinstance(value, str) else value
    return bytes(table)


def _residue_table(reverse: bool) -> bytearray:
    """Return the residue of each codon number of A, C, G, T, for the codon or its reverse complement."""
    table = bytearray(256)
    complement = str.maketrans("ACGT", "TGCA")
    for i, a in enumerate(_BASES):
        for j, b in enumerate(_BASES):
            for k, c in enumerate(_BASES):
                codon = (a + b + c).translate(complement)[::-1] if reverse else a + b + c
                number = sum("ACGT".index(base) * weight for base, weight in zip(codon, (25, 5, 1), strict=True))
                table[number] = ord(_CODE[16 * i + 4 * j + k])
    return table


def _shared_residues(residue: bytearray) -> list[int]:
    """Return the residue for each three base sets of four bits: the one that all readings share, or ``X``."""
    shared = [ord("X")] * 4096
    readings = {bases: [i for i in range(4) if bases >> i & 1] for bases in range(1, 16)}
    for codon in range(4096):
        sets = (codon >> 8, codon >> 4 & 15, codon & 15)
        if all(sets):
            a, b, c = (readings[bases] for bases in sets)
            residues = {residue[25 * i + 5 * j + k] for i in a for j in b for k in c}
            if len(residues) == 1:
                shared[codon] = residues.pop()
    return shared


def _number_ambiguous(forward: bytearray, reverse: bytearray) -> NDArray[np.uint8]:
    """Assign a number to each pair of residues in both tables; return the numbers by base sets."""
    pairs = [*zip(_shared_residues(forward), _shared_residues(reverse), strict=True)]
    numbers = {pair: _FIRST_AMBIGUOUS + i for i, pair in enumerate(sorted(set(pairs)))}
    for pair, number in numbers.items():
        forward[number], reverse[number] = pair
    return np.array([numbers[pair] for pair in pairs], dtype=np.uint8)


def _seen_table(forward: bytearray, reverse: bytearray) -> bytes:
    """Return bits for each codon number: a stop or a residue on either strand."""
    stop, residue = ord("*"), {*_CODE.encode()}
    return bytes(
        (a == stop) * FORWARD_STOP | (b == stop) * REVERSE_STOP | (a in residue) * FORWARD_RESIDUE
        | (b in residue) * REVERSE_RESIDUE
        for a, b in zip(forward, reverse, strict=True)
    )  # fmt: skip


_forward, _reverse = _residue_table(reverse=False), _residue_table(reverse=True)
_AMBIGUOUS_NUMBER = _number_ambiguous(_forward, _reverse)
_DIGIT = _byte_table({"A": 0, "C": 1, "G": 2, "T": 3}, default=_OTHER)
_BASE_SET = _byte_table({**_IUPAC}, default=0)

TO_IUPAC = _byte_table({**{letter: letter for letter in _IUPAC}, "U": "T"}, default=ord("N"))
"""Table that maps U to T and letters outside the IUPAC alphabet to N"""
SEEN = _seen_table(_forward, _reverse)
"""Bits by codon number"""
RESIDUES = (bytes(_forward), bytes(_reverse))
"""Residue by codon number on both strands; ``X`` for several residues, ``NO_RESIDUE`` for unknown codons"""
COMPLEMENT = {
    "published": _byte_table(dict(zip("ACGT", "TGCA", strict=True))),
    "resolved": _byte_table(dict(zip("ACGTRYSWKMBDHVN", "TGCAYRSWMKVHDBN", strict=True))),
}
"""Complement of each letter, by ambiguity setting"""
