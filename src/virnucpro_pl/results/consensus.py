"""Consensus: scores of frames to calls of chunks and records."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from virnucpro_pl.errors import UserError

Tie = Literal["virus", "ambiguous"]
CALLS = ("others", "virus", "ambiguous", None)
"""Calls by number; the last stands for no call."""
OTHERS, VIRUS, AMBIGUOUS, NOT_CALLED = range(len(CALLS))
PUBLISHED_THRESHOLD = 0.5


class CallingRules(NamedTuple):
    """Rules that turn scores into calls."""

    tie: Tie = "virus"
    """call of a chunk whose highest virus score equals its highest other score; ``virus`` as published"""
    min_viral_fraction: float = 0.5
    """share of called chunks that must be viral for a record to be viral"""
    threshold: float | None = None
    """score from which a chunk is viral; None: that of the head; 0.5 as published"""
    domain_length: int = 0
    """length in nt below which a record is shorter than those of training and test; 0: unknown"""

    @property
    def limit(self) -> float:
        """Return the threshold, 0.5 if none is set."""
        return PUBLISHED_THRESHOLD if self.threshold is None else self.threshold

    def check(self) -> None:
        """Raise UserError if a rule is out of range."""
        if self.tie not in get_args(Tie):
            raise UserError(f"results.tie={self.tie}: choose one of {', '.join(get_args(Tie))}")
        if not 0 < self.min_viral_fraction <= 1:
            raise UserError(f"results.min_viral_fraction={self.min_viral_fraction}: give a share above 0 and up to 1")
        if not 0 < self.limit < 1:
            raise UserError(f"results.threshold={self.threshold}: give a score between 0 and 1, or null for the head's")


class Consensus(NamedTuple):
    """Calls of consecutive groups: chunks over their ORFs, or records over their chunks."""

    calls: NDArray[np.uint8]
    """(G,) index in ``CALLS``"""
    viral: NDArray[np.int64]
    """(G,) number of viral members"""
    others_score: NDArray[np.float32]
    """(G,) highest score of ``others`` of any ORF; NaN without ORF"""
    virus_score: NDArray[np.float32]
    """(G,) highest score of ``virus`` of any ORF; NaN without ORF"""


def join(parts: Sequence[Consensus]) -> Consensus:
    """Concatenate the groups of one or more parts."""
    return Consensus(*map(np.concatenate, zip(*parts, strict=True)))


def call_orfs(scores: NDArray[np.float32], threshold: float = PUBLISHED_THRESHOLD) -> NDArray[np.bool_]:
    """Return which ORFs are viral, (F, 2) -> (F,): those with the larger virus score, as published; a tie is others."""
    if threshold == PUBLISHED_THRESHOLD:
        return scores[:, 1] > scores[:, 0]
    return scores[:, 1] > threshold


def chunk_margins(
    others: NDArray[np.float32], virus: NDArray[np.float32], threshold: float = PUBLISHED_THRESHOLD
) -> NDArray[np.float32]:
    """Return the margins of chunks from the highest scores of their ORFs, (C,); positive is viral, 0 is a tie.

    As published, the margin is the highest virus score minus the highest other score. Another threshold is compared
    with that difference at scores of ``threshold`` and ``1 - threshold``.
    """
    return virus - others if threshold == PUBLISHED_THRESHOLD else virus - others - np.float32(2 * threshold - 1)


def call_chunks(scores: NDArray[np.float32], num_orfs: NDArray[np.int64], rules: CallingRules) -> Consensus:
    """Call chunks by the highest score of each class over their ORFs, as published.

    Args:
        scores: (F, 2) scores of the ORFs, chunk after chunk.
        num_orfs: (C,) number of ORFs of each chunk.
        rules: calling rules.
    """
    others, virus = (_group_max(scores[:, column], num_orfs) for column in (0, 1))
    margins = chunk_margins(others, virus, rules.limit)
    calls = np.where(margins >= 0, VIRUS, OTHERS).astype(np.uint8)
    if rules.tie == "ambiguous":
        calls[margins == 0] = AMBIGUOUS
    calls[num_orfs == 0] = NOT_CALLED
    return Consensus(calls, group_sums(call_orfs(scores, rules.limit), num_orfs), others, virus)


def withhold(chunks: Consensus, excluded: NDArray[np.bool_]) -> Consensus:
    """Return the consensus without the calls and scores of the (C,) excluded chunks."""
    return chunks._replace(
        calls=np.where(excluded, NOT_CALLED, chunks.calls).astype(np.uint8),
        others_score=np.where(excluded, np.float32(np.nan), chunks.others_score),
        virus_score=np.where(excluded, np.float32(np.nan), chunks.virus_score),
    )


def call_records(chunks: Consensus, num_chunks: NDArray[np.int64], rules: CallingRules) -> Consensus:
    """Call records by the share of viral chunks among their called chunks.

    Args:
        chunks: consensus of the chunks, record after record.
        num_chunks: (R,) number of chunks of each record.
        rules: calling rules.
    """
    viral, ambiguous, uncalled = (
        group_sums(chunks.calls == call, num_chunks) for call in (VIRUS, AMBIGUOUS, NOT_CALLED)
    )
    called = num_chunks - uncalled
    needed = rules.min_viral_fraction
    # Divided, not multiplied: 0.55 * 100 is more than 55.
    viral_share, possible_share = (count / np.maximum(called, 1) for count in (viral, viral + ambiguous))
    calls = np.select(
        [called == 0, viral_share >= needed, possible_share >= needed], [NOT_CALLED, VIRUS, AMBIGUOUS], OTHERS
    )
    others, virus = (_group_max(scores, num_chunks) for scores in (chunks.others_score, chunks.virus_score))
    return Consensus(calls.astype(np.uint8), viral, others, virus)


def group_sums(members: NDArray[Any], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the sums of consecutive groups: (M,) values, (G,) sizes -> (G,)."""
    total = np.concatenate([[0], np.cumsum(members, dtype=np.int64)])
    ends = np.cumsum(sizes)
    return total[ends] - total[ends - sizes]  # type: ignore[no-any-return]


def _group_max(values: NDArray[np.float32], sizes: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the highest value of each group, NaN for a group that is empty or holds only NaN."""
    highest = np.full(len(sizes), np.nan, dtype=np.float32)
    filled = np.flatnonzero(sizes)
    if len(filled):
        highest[filled] = np.fmax.reduceat(values, (np.cumsum(sizes) - sizes)[filled])
    return highest
