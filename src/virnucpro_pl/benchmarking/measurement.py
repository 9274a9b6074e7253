"""One figure of a benchmark, and the table of all."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MATRIX_PRODUCTS = "matrix products"
ENCODER = "encoder"
PREDICT = "predict"
PREDICT_STEADY = "predict, steady"
PREDICT_STAGE = "predict, stage"
PRECISION = "precision"
"""The parts of a benchmark.

``predict, steady`` leaves out the time until the first batch is there, ``predict, stage`` is one encoder within it.
"""

OURS = "virnucpro_pl"
BOTH = "both"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was measured of one engine in one precision; None where a figure has no meaning for it."""

    part: str
    encoder: str
    engine: str
    precision: str
    mix: str = ""
    """Length of the reads"""
    sequences: int | None = None
    tokens: int
    """Real ones, without padding; of both encoders, those of ESM-2"""
    seconds: float
    flops: float
    """Operations by formula"""
    matrix_seconds: float | None = None
    """What the same operations take as bare matrix products"""
    packing_efficiency: float | None = None
    """Real tokens among those processed"""
    gpu_utilisation_percent: float | None = None
    wait_share: float | None = None
    """Share of the time that the encoders waited for data"""
    cosine_min: float | None = None
    """Of the embeddings with those of virnucpro_pl (encoder), or with exact float32 (precision)"""
    cosine_mean: float | None = None
    sqnr_db: float | None = None
    """Signal to quantisation noise of the embeddings, exact float32 being the signal"""
    call_agreement: float | None = None
    """Share of calls that are those of exact float32"""

    @property
    def tokens_per_second(self) -> float:
        """Real tokens."""
        return self.tokens / self.seconds

    @property
    def sequences_per_second(self) -> float | None:
        """ORFs."""
        return None if self.sequences is None else self.sequences / self.seconds

    @property
    def tflops(self) -> float:
        """10^12 operations per second."""
        return self.flops / self.seconds / 1e12

    @property
    def share_of_matrix_rate(self) -> float | None:
        """1 is the speed of bare matrix products."""
        return None if self.matrix_seconds is None else self.matrix_seconds / self.seconds

    @property
    def tokens_per_second_limit(self) -> float | None:
        """Tokens per second at the speed of bare matrix products."""
        return None if self.matrix_seconds is None else self.tokens / self.matrix_seconds


COLUMNS = (
    *("part", "encoder", "engine", "precision", "mix", "sequences", "tokens", "seconds", "tokens_per_second"),
    *("sequences_per_second", "tflops", "share_of_matrix_rate", "tokens_per_second_limit", "packing_efficiency"),
    *("gpu_utilisation_percent", "wait_share", "cosine_min", "cosine_mean", "sqnr_db", "call_agreement"),
)


def rows(measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Every figure of every measurement under the name of its column."""
    return [
        {
            **{column: _rounded(getattr(found, column)) for column in COLUMNS},
            "times_as_fast": _rounded(times_as_fast(measurements, found)),
            "share_of_slower_encoder": _rounded(share_of_slower_encoder(measurements, found)),
        }
        for found in measurements
    ]


def write_csv(measurements: Sequence[Measurement], path: Path) -> None:
    """Write one row per measurement; a figure that has no meaning is left empty."""
    table = rows(measurements)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)


def times_as_fast(measurements: Iterable[Measurement], other: Measurement) -> float | None:
    """Our tokens per second over those of another engine on the same reads in the same precision."""
    if other.part != ENCODER or other.engine == OURS:
        return None
    for ours in _encoders(measurements, other):
        if ours.encoder == other.encoder:
            return ours.tokens_per_second / other.tokens_per_second
    return None


def share_of_slower_encoder(measurements: Iterable[Measurement], whole: Measurement) -> float | None:
    """Sequences per second of the whole of ``predict`` over those of the slower encoder by itself."""
    alone = [ours.sequences / ours.seconds for ours in _encoders(measurements, whole) if ours.sequences]
    if whole.part not in (PREDICT, PREDICT_STEADY) or not alone or not whole.sequences:
        return None
    return whole.sequences / whole.seconds / min(alone)


def _encoders(measurements: Iterable[Measurement], like: Measurement) -> list[Measurement]:
    """Our encoders by themselves, on the same reads in the same precision."""
    wanted = ENCODER, OURS, like.precision, like.mix
    return [found for found in measurements if (found.part, found.engine, found.precision, found.mix) == wanted]


def _rounded(value: Any) -> Any:
    return float(f"{value:.7g}") if isinstance(value, float) else value
