"""From frames to chunks to records: who is called what."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from virnucpro_pl.errors import UserError

Tie = Literal["virus", "ambiguous"]
CALLS = ("others", "virus", "ambiguous", None)
"""Calls by number; the last stands for no call at all."""
OTHERS, VIRUS, AMBIGUOUS, NOT_CALLED = range(len(CALLS))
PUBLISHED_THRESHOLD = 0.5


class CallingRules(NamedTuple):
    """How scores become calls."""

    tie: Tie = "virus"
    """What a chunk is whose best virus score equals its best others score; ``virus`` is the published rule"""
    min_viral_fraction: float = 0.5
    """Share of a record's called chunks that must be viral for the record to be"""
    threshold: float | None = None
    """Score from which a chunk is viral; None leaves it to the head, 0.5 is the published rule"""
    domain_length: int = 0
    """Records shorter than this (nt) are outside of what the head was trained and tested on; 0 where nobody knows"""

    @property
    def limit(self) -> float:
        """The threshold that holds."""
        return PUBLISHED_THRESHOLD if self.threshold is None else self.threshold

    def check(self) -> None:
        """Raise UserError for a rule that makes no sense."""
        if self.tie not in get_args(Tie):
            raise UserError(f"results.tie={self.tie}: choose one of {', '.join(get_args(Tie))}")
        if not 0 < self.min_viral_fraction <= 1:
            raise UserError(f"results.min_viral_fraction={self.min_viral_fraction}: give a share above 0 and up to 1")
        if not 0 < self.limit < 1:
            raise UserError(f"results.threshold={self.threshold}: give a score between 0 and 1, or null for the head's")


class Consensus(NamedTuple):
    """Calls of consecutive groups: of chunks over their ORFs, or of records over their chunks."""

    calls: NDArray[np.uint8]
    """(G,) index in ``CALLS``"""
    viral: NDArray[np.int64]
    """(G,) members that are viral"""
    others_score: NDArray[np.float32]
    """(G,) highest probability of ``others`` of any ORF; NaN without one"""
    virus_score: NDArray[np.float32]
    """(G,) highest probability of ``virus`` of any ORF; NaN without one"""


def join(parts: Sequence[Consensus]) -> Consensus:
    """Calls of the groups of all parts, of which there is at least one."""
    return Consensus(*map(np.concatenate, zip(*parts, strict=True)))


def call_orfs(scores: NDArray[np.float32], threshold: float = PUBLISHED_THRESHOLD) -> NDArray[np.bool_]:
    """(F, 2) scores -> (F,) whether each ORF is viral; the published tool takes the larger score, a tie is others."""
    if threshold == PUBLISHED_THRESHOLD:
        return scores[:, 1] > scores[:, 0]
    return scores[:, 1] > threshold


def chunk_margins(
    others: NDArray[np.float32], virus: NDArray[np.float32], threshold: float = PUBLISHED_THRESHOLD
) -> NDArray[np.float32]:
    """Return (C,) by how much chunks are viral, from the highest scores of their ORFs; 0 is a tie.

    As published, the highest virus score is compared with the highest other score. With another threshold, their
    difference is compared with what it is where the two are ``threshold`` and ``1 - threshold``.
    """
    return virus - others if threshold == PUBLISHED_THRESHOLD else virus - others - np.float32(2 * threshold - 1)


def call_chunks(scores: NDArray[np.float32], num_orfs: NDArray[np.int64], rules: CallingRules) -> Consensus:
    """Call chunks by the highest score of each class over their ORFs, as published.

    Args:
        scores: (F, 2) of the ORFs, chunk after chunk.
        num_orfs: (C,) ORFs of each chunk.
        rules: what a tie means.
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
        num_chunks: (R,) chunks of each record.
        rules: the share needed.
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
    """(M,) values of consecutive groups of these sizes -> (G,) sum of each group."""
    total = np.concatenate([[0], np.cumsum(members, dtype=np.int64)])
    ends = np.cumsum(sizes)
    return total[ends] - total[ends - sizes]  # type: ignore[no-any-return]


def _group_max(values: NDArray[np.float32], sizes: NDArray[np.int64]) -> NDArray[np.float32]:
    """Highest of each group, NaN where a group is empty or holds nothing else."""
    highest = np.full(len(sizes), np.nan, dtype=np.float32)
    filled = np.flatnonzero(sizes)
    if len(filled):
        highest[filled] = np.fmax.reduceat(values, (np.cumsum(sizes) - sizes)[filled])
    return highest
