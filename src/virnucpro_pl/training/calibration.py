"""From scores to probabilities, and to the threshold that keeps a promise."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from virnucpro_pl.errors import UserError

COLDEST, HOTTEST = 0.05, 20.0
_STEPS = 60
_GOLDEN = (5**0.5 - 1) / 2


def fit_temperature(margins: NDArray[np.float64], labels: NDArray[np.uint8]) -> float:
    """Return what to divide logits by so that their softmax is a probability (Guo et al. 2017, arXiv:1706.04599).

    The negative log likelihood is convex in the logarithm's slope, so a golden-section search finds its minimum between
    0.05 and 20.

    Args:
        margins: (N,) logit of virus minus logit of others.
        labels: (N,) 1 for virus.
    """
    signed = np.where(labels == 1, margins, -margins)

    def loss(log_temperature: float) -> float:
        return float(np.logaddexp(0.0, -signed / np.exp(log_temperature)).mean())

    best = float(np.exp(_minimum(loss, np.log(COLDEST), np.log(HOTTEST))))
    return best if loss(np.log(best)) <= loss(0.0) else 1.0


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
    """Return the lowest threshold, so the one with the highest recall, that keeps what is wanted on these chunks.

    Args:
        scores: (C,) chunk scores.
        labels: (C,) 1 for virus; both classes.
        precision: share of viral chunks among those called viral that is reached.
        false_positive_rate: share of other chunks called viral that is not passed.

    Raises:
        UserError: no threshold does.
    """
    values, inverse = np.unique(scores, return_inverse=True)
    virus, others = (np.bincount(inverse[labels == label], minlength=len(values)) for label in (1, 0))
    tp, fp = (np.cumsum(count[::-1])[::-1] for count in (virus, others))  # called viral from each value on
    keeps = np.ones(len(values), dtype=np.bool_)
    if precision is not None:
        reached = tp / (tp + fp)
        keeps &= (reached >= precision) & (tp > 0)
        if not keeps.any():
            raise UserError(
                f"threshold.precision={precision}: the best precision on the validation part is"
                f" {float(reached[tp > 0].max()):.4f}; ask for less, or train longer or on more"
            )
    if false_positive_rate is not None:
        keeps &= fp / others.sum() <= false_positive_rate
        if not keeps.any():
            raise UserError(
                f"threshold.false_positive_rate={false_positive_rate}: at the highest score of the validation part it"
                f" is {float(fp[-1] / others.sum()):.4f} already; allow more"
            )
    lowest = int(np.flatnonzero(keeps)[0])
    below = values[lowest - 1] if lowest else 0.0
    # Between two scores, so that rounding decides nothing.
    return float(np.clip((values[lowest] + below) / 2, 1e-6, 1 - 1e-6))
