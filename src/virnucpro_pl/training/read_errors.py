"""Simulated sequencing errors: substitutions, insertions and deletions."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from virnucpro_pl.errors import UserError

_BASES = np.frombuffer(b"ACGT", dtype=np.uint8)


class ErrorRates(NamedTuple):
    """Rates of errors of each kind."""

    substitutions: float = 0.0
    insertions: float = 0.0
    deletions: float = 0.0

    def check(self) -> None:
        """Raise UserError if a rate is out of range."""
        for name, rate in self._asdict().items():
            if not 0 <= rate < 0.5:
                raise UserError(
                    f"data.errors.{name}={rate}: give a share from 0 to below 0.5; 0.01 is a poor short read"
                )

    @property
    def are_any(self) -> bool:
        """Return whether any rate is above 0."""
        return any(self)


def with_errors(letters: bytes, rates: ErrorRates, rng: np.random.Generator) -> bytes:
    """Return a sequence with random substitutions, deletions and insertions.

    Letters other than A, C, G, T are substituted, too. At least one letter remains.
    """
    read: NDArray[np.uint8] = np.frombuffer(letters.upper(), dtype=np.uint8).copy()
    substituted = np.flatnonzero(rng.random(len(read)) < rates.substitutions)
    numbers = np.searchsorted(_BASES, read[substituted])
    others = (numbers + rng.integers(1, 4, len(substituted))) % 4
    read[substituted] = _BASES[others]
    kept = rng.random(len(read)) >= rates.deletions
    if not kept.any():
        kept[0] = True
    read = read[kept]
    inserted = np.flatnonzero(rng.random(len(read)) < rates.insertions) + 1
    return bytes(np.insert(read, inserted, _BASES[rng.integers(0, 4, len(inserted))]).tobytes())
