"""How the fingerprints of two runs, which ``run.json`` keeps, differ."""

from collections.abc import Mapping
from typing import Any

INPUT = "input"
THRESHOLD = "results.threshold"
CALLS = ("results.tie", "results.min_viral_fraction", THRESHOLD)
JOB = "job of the sweep"
_WEIGHTS = "weights"


def weights_fingerprint(digests: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Tell weights by the SHA-256 of their files, wherever they lie."""
    return {f"model.{name}.{_WEIGHTS}": sorted(files.values()) for name, files in digests.items()}


def scores_fingerprint(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """Return what scores depend on: all but the settings that turn them into calls."""
    return {key: value for key, value in fingerprint.items() if key not in (*CALLS, JOB)}


def difference(then: Mapping[str, Any], now: Mapping[str, Any], where: tuple[str, str] = ("there", "here")) -> str:
    """Say in a user's words how two runs differ in what is known of both; empty if they do not.

    Args:
        then: fingerprint of the one.
        now: that of the other, of which less may be known.
        where: what the two are called.

    >>> difference({"data.chunk_length": 500, "input": ["a"]}, {"data.chunk_length": 300, "input": ["b"]})
    'data.chunk_length=500 there, 300 here; input: other sequences'
    """
    told = []
    for key, before in then.items():
        after = now.get(key, before)
        if before == after:
            continue
        if key == JOB:
            told.append(f"{_words(before, but=after)} {where[0]}, {_words(after, but=before)} {where[1]}")
        elif key == INPUT:
            told.append(f"{key}: other sequences")
        elif key.endswith(_WEIGHTS):
            told.append(f"{key}: other weights")
        else:
            told.append(f"{key}={before} {where[0]}, {after} {where[1]}")
    return "; ".join(told)


def _words(job: list[str], but: list[str]) -> str:
    """Return what was asked for in one job only."""
    return " ".join(word for word in job if word not in but) or "nothing"
