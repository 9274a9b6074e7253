"""Calibration of scores, and choice of a threshold."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from virnucpro_pl.errors import UserError

COLDEST, HOTTEST = 0.05, 20.0
_STEPS = 60
_GOLDEN = (5**0.5 - 1) / 2
_EDGE = 1e-6
"""Smallest distance of a threshold from 0 and 1"""


def fit_temperature(margins: NDArray[np.float64], labels: NDArray[np.uint8]) -> float:
    """Return the temperature that calibrates logits (Guo et al. 2017, arXiv:1706.04599).

    The negative log likelihood has a single minimum along the logarithm of the temperature, which a golden-section
    search finds between 0.05 and 20.

    Args:
        margins: (N,) logit of virus minus logit of others.
        labels: (N,) 1 for virus.
    """
    signed = np.where(labels == 1, margins, -margins)

    def loss(log_temperature: float) -> float:
        return float(np.logaddexp(0.0, -signed / np.exp(log_temperature)).mean())

    best = float(np.exp(_minimum(loss, np.log(COLDEST), np.log(HOTTEST))))
    return best if loss(np.log(best)) < loss(0.0) else 1.0


def _minimum(function: Callable[[float], float], low: float, high: float) -> float:
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(_STEPS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = function(right)
    return (low + high) / 2


def choose_threshold(
    scores: NDArray[np.float64],
    labels: NDArray[np.uint8],
    precision: float | None = None,
    false_positive_rate: float | None = None,
) -> float:
    """Return the lowest threshold, which has the highest recall, that meets the conditions on these chunks.

    Args:
        scores: (C,) chunk scores.
        labels: (C,) 1 for virus; both classes occur.
        precision: smallest share of viral chunks among those called viral.
        false_positive_rate: largest share of other chunks that are called viral.

    Raises:
        UserError: no threshold meets the conditions; the message states the best possible value.
    """
    scores = np.where(scores < _EDGE, 0.0, np.minimum(scores, 1 - _EDGE))
    values, inverse = np.unique(scores, return_inverse=True)
    virus, others = (np.bincount(inverse[labels == label], minlength=len(values)) for label in (1, 0))
    tp, fp = (np.cumsum(count[::-1])[::-1] for count in (virus, others))  # called viral at or above each value
    usable = values > 0
    values, tp, fp = values[usable], tp[usable], fp[usable]
    if not len(values):
        raise UserError("threshold: every score of the validation split is 0; train longer or on more")
    reached, passed = tp / (tp + fp), fp / others.sum()
    is_precise, is_quiet = np.ones((2, len(values)), dtype=np.bool_)
    if precision is not None:
        is_precise = (tp > 0) & (reached >= precision)
    if false_positive_rate is not None:
        is_quiet = passed <= false_positive_rate
    if not is_precise.any():
        raise UserError(
            f"threshold.precision={precision}: the best precision on the validation split is"
            f" {float(reached.max()):.4f}; ask for less, or train longer or on more"
        )
    if not is_quiet.any():
        raise UserError(
            f"threshold.false_positive_rate={false_positive_rate}: at the highest score of the validation split it"
            f" is {float(passed[-1]):.4f} already; allow more"
        )
    if not (is_precise & is_quiet).any():
        raise UserError(
            f"threshold.precision={precision} is not reached within threshold.false_positive_rate="
            f"{false_positive_rate}: with it, the lowest rate on the validation split is"
            f" {float(passed[is_precise].min()):.4f}; allow that, or ask for less precision"
        )
    lowest = int(np.flatnonzero(is_precise & is_quiet)[0])
    below = values[lowest - 1] if lowest else _EDGE
    between = (values[lowest] + below) / 2  # so that rounding has no effect
    return float(between if between > below else values[lowest])
