"""Fingerprints of runs: their parts, and the difference of two."""

from collections.abc import Mapping
from typing import Any

INPUT = "input"
THRESHOLD = "results.threshold"
CALLS = ("results.tie", "results.min_viral_fraction", THRESHOLD)
JOB = "job of the sweep"
_WEIGHTS = "weights"


def weights_fingerprint(digests: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Return the fingerprint of weights: the SHA-256 of their files, whatever their paths."""
    return {f"model.{name}.{_WEIGHTS}": sorted(files.values()) for name, files in digests.items()}


def scores_fingerprint(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a fingerprint that scores depend on: all but the settings that turn them into calls."""
    return {key: value for key, value in fingerprint.items() if key not in (*CALLS, JOB)}


def difference(then: Mapping[str, Any], now: Mapping[str, Any], where: tuple[str, str] = ("there", "here")) -> str:
    """Describe the difference of two fingerprints in the user's terms; keys that the second lacks are ignored.

    Args:
        then: fingerprint of the first run.
        now: fingerprint of the second run, which may lack keys.
        where: names of the two runs.

    Returns:
        A text, empty if there is no difference.

    >>> difference({"data.chunk_length": 500, "input": ["a"]}, {"data.chunk_length": 300, "input": ["b"]})
    'data.chunk_length=500 there, 300 here; input: other sequences'
    """
    differences = []
    for key, before in then.items():
        after = now.get(key, before)
        if before == after:
            continue
        if key == JOB:
            differences.append(f"{_words(before, but=after)} {where[0]}, {_words(after, but=before)} {where[1]}")
        elif key == INPUT:
            differences.append(f"{key}: other sequences")
        elif key.endswith(_WEIGHTS):
            differences.append(f"{key}: other weights")
        else:
            differences.append(f"{key}={before} {where[0]}, {after} {where[1]}")
    return "; ".join(differences)


def _words(job: list[str], but: list[str]) -> str:
    """Return the settings of one job that the other lacks."""
    return " ".join(word for word in job if word not in but) or "nothing"
