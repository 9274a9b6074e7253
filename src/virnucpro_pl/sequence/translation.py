"""Six-frame translation of many chunks at once, by table look-ups over bytes."""

from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from virnucpro_pl.errors import UserError
from virnucpro_pl.sequence import codons

Ambiguity = Literal["published", "resolved"]
FRAMES = ("F1", "F2", "F3", "R1", "R2", "R3")

# (3, 3, 6): by start and end of a chunk modulo 3, the position modulo 3 where the codons of each frame lie.
_PHASES = np.array(
    [[[*((s + i) % 3 for i in range(3)), *((e - i) % 3 for i in range(3))] for e in range(3)] for s in range(3)]
)
_IS_STOP = np.repeat(np.array([codons.FORWARD_STOP, codons.REVERSE_STOP], dtype=np.uint8), 3)
_IS_RESIDUE = np.repeat(np.array([codons.FORWARD_RESIDUE, codons.REVERSE_RESIDUE], dtype=np.uint8), 3)


class Orfs(NamedTuple):
    """The stop-free frames of a list of chunks, chunk by chunk, frames in the order of ``FRAMES``."""

    chunk: NDArray[np.int64]
    """(F,) index of the chunk in the list."""
    frame: NDArray[np.uint8]
    """(F,) index in ``FRAMES``."""
    nucleotides: list[bytes]
    proteins: list[bytes]
    stopped: NDArray[np.bool_]
    """(C,) whether any frame of the chunk holds a stop codon."""


def check_ambiguity(ambiguity: str) -> None:
    """Raise UserError for an unknown way to read ambiguous letters."""
    if ambiguity not in get_args(Ambiguity):
        raise UserError(f"data.ambiguity={ambiguity}: choose one of {', '.join(get_args(Ambiguity))}")


def find_orfs(letters: bytes, lengths: NDArray[np.int64], ambiguity: Ambiguity = "published") -> Orfs:
    """Translate chunks in six frames and keep the frames without a stop codon.

    With ``ambiguity="published"`` the published rules hold: the reverse complement swaps A, C, G, T only; a codon
    with any other letter is dropped from the protein; the nucleotides of an ORF are the first 3P + 1 bases of its
    frame (P residues, one base more than its codons, where the chunk has it). With ``"resolved"`` U is read as T,
    IUPAC letters are complemented, an ambiguous codon becomes the residue all its readings share (``X`` where they
    differ, other letters count as N), so nucleotides and protein span the same bases. Without ambiguous letters both
    agree. A frame without any residue is no ORF.

    Args:
        letters: the chunks end to end.
        lengths: (C,) letters of each chunk, at least 1.
        ambiguity: how letters other than A, C, G, T are read.

    >>> orfs = find_orfs(b"ATGAAATAA", np.array([9]))
    >>> [(FRAMES[f], n.decode(), p.decode()) for f, n, p in zip(orfs.frame, orfs.nucleotides, orfs.proteins)]
    [('F3', 'GAAATAA', 'EI'), ('R1', 'TTATTTCAT', 'LFH'), ('R2', 'TATTTCA', 'YF'), ('R3', 'ATTTCAT', 'IS')]
    """
    resolved = ambiguity == "resolved"
    if resolved:
        letters = letters.translate(codons.TO_IUPAC)
    numbers, has_unknown = codons.number_codons(letters, resolved)
    ends = np.cumsum(lengths)
    is_open, stopped = _open_frames(numbers, ends - lengths, ends)

    chunk, frame = np.nonzero(is_open)
    skipped = frame % 3
    spans = lengths[chunk] - skipped
    is_reverse = frame >= 3
    step = np.where(is_reverse, -1, 1)
    first = np.where(is_reverse, ends[chunk] - 1 - skipped, ends[chunk] - spans)
    proteins = _read(numbers, first - 2 * is_reverse, spans // 3, 3 * step, codons.RESIDUES)
    if has_unknown:
        proteins = [protein.replace(codons.NO_RESIDUE, b"") for protein in proteins]
    num_residues = np.fromiter(map(len, proteins), dtype=np.int64, count=len(proteins))
    nucleotides = _read(letters, first, np.minimum(spans, 3 * num_residues + 1), step, codons.BASES[ambiguity])
    return Orfs(chunk, frame.astype(np.uint8), nucleotides, proteins, stopped)


def _read(
    text: bytes,
    first: NDArray[np.int64],
    lengths: NDArray[np.int64],
    step: NDArray[np.int64],
    tables: tuple[bytes, bytes],
) -> list[bytes]:
    """Read ``lengths[n]`` letters from ``first[n]`` on in steps of ``step[n]``, translated by the strand's table."""
    after = first + lengths * step
    after[after < 0] -= len(text)  # a slice down to the very first letter ends before it, not at the last
    table = np.array(tables, dtype=object)[(step < 0).astype(np.int64)]
    return [
        text[a:b:c].translate(t)
        for a, b, c, t in zip(first.tolist(), after.tolist(), step.tolist(), table.tolist(), strict=True)
    ]


def _open_frames(
    numbers: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return (C, 6) whether a frame has a residue and no stop codon, (C,) whether any frame has a stop codon."""
    seen = np.frombuffer(bytearray(numbers).translate(codons.SEEN), dtype=np.uint8)
    seen[ends - 1] = seen[ends - 2] = 0  # a codon from here would cross the border of two chunks
    seen_in = np.empty((3, len(ends)), dtype=np.uint8)  # by position modulo 3
    for phase in range(3):
        first, after = (starts + 2 - phase) // 3, (ends + 2 - phase) // 3  # the margin leaves no slice empty
        seen_in[phase] = np.bitwise_or.reduceat(np.ascontiguousarray(seen[phase::3]), first) * (first < after)
    seen_in_frame = seen_in[_PHASES[starts % 3, ends % 3], np.arange(len(ends))[:, None]]
    is_open = seen_in_frame & (_IS_STOP | _IS_RESIDUE) == _IS_RESIDUE
    return is_open, (seen_in_frame & _IS_STOP != 0).any(axis=1)
