"""Measurements of a benchmark, and their table."""

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
"""Parts of a benchmark: ``steady`` begins with the first batch, ``stage`` is one encoder within ``predict``"""
BOTH = "both"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Speed of one part in one precision; None for metrics that do not apply."""

    part: str
    encoder: str
    precision: str
    mix: str = ""
    """length of the reads"""
    sequences: int | None = None
    tokens: int
    """tokens without padding; those of ESM-2 for both encoders together"""
    seconds: float
    flops: float
    """operations by formula"""
    matrix_seconds: float | None = None
    """time of the same operations as bare matrix products"""
    packing_efficiency: float | None = None
    """share of tokens that are not padding"""
    gpu_utilisation_percent: float | None = None
    wait_share: float | None = None
    """share of the time that the encoders waited for data"""

    @property
    def tokens_per_second(self) -> float:
        """Return the tokens per second."""
        return self.tokens / self.seconds

    @property
    def sequences_per_second(self) -> float | None:
        """Return the ORFs per second."""
        return None if self.sequences is None else self.sequences / self.seconds

    @property
    def tflops(self) -> float:
        """Return 10^12 operations per second."""
        return self.flops / self.seconds / 1e12

    @property
    def share_of_matrix_rate(self) -> float | None:
        """Return the speed relative to bare matrix products."""
        return None if self.matrix_seconds is None else self.matrix_seconds / self.seconds

    @property
    def tokens_per_second_limit(self) -> float | None:
        """Return the tokens per second at the speed of bare matrix products."""
        return None if self.matrix_seconds is None else self.tokens / self.matrix_seconds


COLUMNS = (
    *("part", "encoder", "precision", "mix", "sequences", "tokens", "seconds", "tokens_per_second"),
    *("sequences_per_second", "tflops", "share_of_matrix_rate", "tokens_per_second_limit", "packing_efficiency"),
    *("gpu_utilisation_percent", "wait_share"),
)


def rows(measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Return the columns of each measurement."""
    return [
        {
            **{column: _rounded(getattr(found, column)) for column in COLUMNS},
            "share_of_slower_encoder": _rounded(share_of_slower_encoder(measurements, found)),
        }
        for found in measurements
    ]


def write_csv(measurements: Sequence[Measurement], path: Path) -> None:
    """Write one row for each measurement; metrics that do not apply are empty."""
    table = rows(measurements)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)


def share_of_slower_encoder(measurements: Iterable[Measurement], whole: Measurement) -> float | None:
    """Return the sequences per second of ``predict`` over those of the slower encoder alone."""
    key = ENCODER, whole.precision, whole.mix
    alone = [
        found.sequences / found.seconds
        for found in measurements
        if (found.part, found.precision, found.mix) == key and found.sequences
    ]
    if whole.part not in (PREDICT, PREDICT_STEADY) or not alone or not whole.sequences:
        return None
    return whole.sequences / whole.seconds / min(alone)


def _rounded(value: Any) -> Any:
    return float(f"{value:.7g}") if isinstance(value, float) else value
