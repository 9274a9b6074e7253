"""One figure of a benchmark, and the table of all."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MATRIX_PRODUCTS = "matrix products"
ENCODER = "encoder"
PREDICT = "predict"
PREDICT_STEADY = "predict, from the first batch on"
PRECISION = "precision"
"""The parts of a benchmark."""

OURS = "virnucpro_pl"
BOTH = "both encoders"


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
    """Real ones, without padding; of ``both encoders``, those of ESM-2"""
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
    """Of the embeddings with those of virnucpro_pl (encoder), or with float32 (precision)"""
    cosine_mean: float | None = None
    sqnr_db: float | None = None
    """Signal to quantisation noise of the embeddings, float32 being the signal"""
    call_agreement: float | None = None
    """Share of calls that are those of float32"""

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

    def row(self) -> dict[str, Any]:
        """All figures under the names of the table's columns."""
        return {column: _rounded(getattr(self, column)) for column in COLUMNS}


COLUMNS = (
    *("part", "encoder", "engine", "precision", "mix", "sequences", "tokens", "seconds", "tokens_per_second"),
    *("sequences_per_second", "tflops", "share_of_matrix_rate", "tokens_per_second_limit", "packing_efficiency"),
    *("gpu_utilisation_percent", "wait_share", "cosine_min", "cosine_mean", "sqnr_db", "call_agreement"),
)


def _rounded(value: Any) -> Any:
    return float(f"{value:.7g}") if isinstance(value, float) else value


def write_csv(measurements: Iterable[Measurement], path: Path) -> None:
    """Write one row per measurement; a figure that has no meaning is left empty."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(measurement.row() for measurement in measurements)


def times_as_fast(ours: Iterable[Measurement], other: Measurement) -> float | None:
    """Tokens per second of our encoder over those of another engine on the same reads in the same precision."""
    for mine in ours:
        if mine.engine == OURS and (mine.part, mine.encoder, mine.precision, mine.mix) == (
            other.part,
            other.encoder,
            other.precision,
            other.mix,
        ):
            return mine.tokens_per_second / other.tokens_per_second
    return None
