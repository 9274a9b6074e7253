"""Six-frame translation of many chunks at once, by byte tables."""

from functools import lru_cache
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from virnucpro_pl.errors import UserError
from virnucpro_pl.sequence import codons

Ambiguity = Literal["published", "resolved"]
FRAMES = ("F1", "F2", "F3", "R1", "R2", "R3")
WHOLE_CHUNK = len(FRAMES)
"""Stands for a frame in rows of whole chunks, which have no protein"""

# (3, 3, 6): shift of the codons of each frame modulo 3, by start and end of a chunk modulo 3.
_SHIFTS = codons.SEEN_BITS * np.array(
    [[[*((s + i) % 3 for i in range(3)), *((e - i) % 3 for i in range(3))] for e in range(3)] for s in range(3)],
    dtype=np.uint16,
)
_PLACE = np.uint16(1) << np.arange(0, 3 * codons.SEEN_BITS, codons.SEEN_BITS, dtype=np.uint16)
_ANY_STOP = (codons.FORWARD_STOP | codons.REVERSE_STOP) * _PLACE.sum(dtype=np.uint16)
_IS_STOP = np.repeat(np.array([codons.FORWARD_STOP, codons.REVERSE_STOP], dtype=np.uint16), 3)
_IS_RESIDUE = np.repeat(np.array([codons.FORWARD_RESIDUE, codons.REVERSE_RESIDUE], dtype=np.uint16), 3)


class Orfs(NamedTuple):
    """ORFs of a list of chunks, chunk by chunk, frames in the order of ``FRAMES``."""

    chunk: NDArray[np.int64]
    """(F,) index of the chunk in the list"""
    frame: NDArray[np.uint8]
    """(F,) index in ``FRAMES``"""
    nucleotides: list[bytes]
    proteins: list[bytes]
    num_bases: NDArray[np.int64]
    """(F,) number of bases"""
    num_residues: NDArray[np.int64]
    """(F,) number of residues"""
    stopped: NDArray[np.bool_]
    """(C,) true if a frame of the chunk holds a stop codon"""


def check_ambiguity(ambiguity: str) -> None:
    """Raise UserError if the setting is unknown."""
    if ambiguity not in get_args(Ambiguity):
        raise UserError(f"data.ambiguity={ambiguity}: choose one of {', '.join(get_args(Ambiguity))}")


def find_orfs(letters: bytes, lengths: NDArray[np.int64], ambiguity: Ambiguity = "published") -> Orfs:
    """Translate chunks in six frames and keep the frames without a stop codon.

    ``published``: the reverse complement swaps A, C, G, T only; a codon with any other letter is dropped from the
    protein; the nucleotides of an ORF are the first 3P + 1 bases of its frame (P residues; one base more than the
    codons, if the chunk has it). ``resolved``: U is read as T, IUPAC letters are complemented, and an ambiguous codon
    becomes the residue that all its readings share (``X`` if they differ; other letters count as N), so that
    nucleotides and protein span the same bases. Both agree without ambiguous letters. A frame without any residue is no
    ORF.

    Args:
        letters: the chunks end to end.
        lengths: (C,) number of letters of each chunk, at least 1.
        ambiguity: treatment of letters other than A, C, G, T.

    >>> orfs = find_orfs(b"ATGAAATAA", np.array([9]))
    >>> [(FRAMES[f], n.decode(), p.decode()) for f, n, p in zip(orfs.frame, orfs.nucleotides, orfs.proteins)]
    [('F3', 'GAAATAA', 'EI'), ('R1', 'TTATTTCAT', 'LFH'), ('R2', 'TATTTCA', 'YF'), ('R3', 'ATTTCAT', 'IS')]
    """
    resolved = ambiguity == "resolved"
    letters = letters.translate(codons.TO_IUPAC) if resolved else _in_upper_case(letters)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    numbers, has_other = codons.number_codons(letters, starts, ends, resolved)
    is_open, stopped = _open_frames(numbers, starts, ends)

    chunk, frame = np.nonzero(is_open)
    skipped = frame % 3
    spans = lengths[chunk] - skipped
    is_reverse = frame >= 3
    step = np.where(is_reverse, -1, 1)
    first = np.where(is_reverse, ends[chunk] - 1 - skipped, ends[chunk] - spans)
    tables = np.array(codons.RESIDUES, dtype=object)[is_reverse.astype(np.int64)].tolist()
    proteins = [
        residues.translate(table)
        for residues, table in zip(_read(numbers, first - 2 * is_reverse, spans // 3, 3 * step), tables, strict=True)
    ]
    num_residues = spans // 3
    if not resolved:
        for orf in np.flatnonzero(has_other[chunk]).tolist():
            proteins[orf] = proteins[orf].replace(codons.NO_RESIDUE, b"")
            num_residues[orf] = len(proteins[orf])
    num_bases = np.minimum(spans, 3 * num_residues + 1)
    nucleotides = _read(letters, first, num_bases, step)
    complement = codons.COMPLEMENT[ambiguity]
    for orf in np.flatnonzero(is_reverse).tolist():
        nucleotides[orf] = nucleotides[orf].translate(complement)
    return Orfs(chunk, frame.astype(np.uint8), nucleotides, proteins, num_bases, num_residues, stopped)


def select_orfs(orfs: Orfs, chosen: NDArray[np.bool_]) -> Orfs:
    """Return the chosen ORFs, (F,) bool."""
    rows = np.flatnonzero(chosen)
    return Orfs(
        orfs.chunk[rows],
        orfs.frame[rows],
        [orfs.nucleotides[row] for row in rows.tolist()],
        [orfs.proteins[row] for row in rows.tolist()],
        orfs.num_bases[rows],
        orfs.num_residues[rows],
        orfs.stopped,
    )


def add_whole_chunks(orfs: Orfs, chosen: NDArray[np.bool_], letters: bytes, lengths: NDArray[np.int64]) -> Orfs:
    """Add the nucleotides of the chosen chunks in upper case, after the ORFs of each chunk.

    Args:
        orfs: ORFs of the chunks.
        chosen: (C,) chosen chunks.
        letters: the chunks end to end.
        lengths: (C,) number of letters of each chunk.
    """
    chunks = np.flatnonzero(chosen)
    if not len(chunks):
        return orfs
    upper, ends = _in_upper_case(letters), np.cumsum(lengths)
    bounds = zip((ends - lengths)[chunks].tolist(), ends[chunks].tolist(), strict=True)
    nucleotides = orfs.nucleotides + [upper[start:end] for start, end in bounds]
    proteins = orfs.proteins + [b""] * len(chunks)
    joined = np.concatenate([orfs.chunk, chunks])
    order = np.argsort(joined, kind="stable")
    return Orfs(
        joined[order],
        np.concatenate([orfs.frame, np.full(len(chunks), WHOLE_CHUNK, dtype=np.uint8)])[order],
        [nucleotides[row] for row in order.tolist()],
        [proteins[row] for row in order.tolist()],
        np.concatenate([orfs.num_bases, lengths[chunks]])[order],
        np.concatenate([orfs.num_residues, np.zeros(len(chunks), dtype=np.int64)])[order],
        orfs.stopped,
    )


def _read(text: bytes, first: NDArray[np.int64], lengths: NDArray[np.int64], step: NDArray[np.int64]) -> list[bytes]:
    """Return ``lengths[n]`` letters from ``first[n]`` on in steps of ``step[n]``."""
    after = first + lengths * step
    after[after < 0] -= len(text)  # the end of a slice down to the first letter
    return [text[a:b:c] for a, b, c in zip(first.tolist(), after.tolist(), step.tolist(), strict=True)]


def _open_frames(
    numbers: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which frames have a residue and no stop codon, (C, 6), and which chunks have a stop codon, (C,)."""
    seen = np.frombuffer(numbers.translate(codons.SEEN), dtype=np.uint8).astype(np.uint16)
    seen *= _position_factors(1 << len(seen).bit_length())[: len(seen)]
    seen_in_chunk = np.bitwise_or.reduceat(seen, starts)
    seen_in_frame = seen_in_chunk[:, None] >> _SHIFTS[starts % 3, ends % 3]
    is_open = seen_in_frame & (_IS_STOP | _IS_RESIDUE) == _IS_RESIDUE
    return is_open, seen_in_chunk & _ANY_STOP != 0


@lru_cache(maxsize=1)
def _position_factors(length: int) -> NDArray[np.uint16]:
    """Return factors that separate the bits of each position modulo 3."""
    return np.tile(_PLACE, length // 3 + 1)


def _in_upper_case(letters: bytes) -> bytes:
    """Return ``letters.upper()``, several times as fast."""
    array = np.frombuffer(letters, dtype=np.uint8)
    is_lower = array - np.uint8(ord("a")) < 26  # letters below "a" wrap around
    return (array - is_lower.view(np.uint8) * np.uint8(ord("a") - ord("A"))).tobytes()
