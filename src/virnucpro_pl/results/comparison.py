"""Comparison of the calls and scores of two runs."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from virnucpro_pl.results.compared_table import CallTable
from virnucpro_pl.runs.fingerprint import difference

_DIFFERENCES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
"""Bounds of the histogram of score differences"""
MISMATCH_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("kind", pa.string()),
        ("reference_label", pa.string()),
        ("candidate_label", pa.string()),
        ("reference_virus_score", pa.float64()),
        ("candidate_virus_score", pa.float64()),
        ("score_difference", pa.float64()),
        ("margin", pa.float64()),
    ]
)


class Comparison:
    """Two tables joined by id; the k-th row of a repeated id is compared with the k-th of the other table.

    Args:
        reference: table that is taken as right.
        candidate: table that is compared with it.
        tolerance: largest difference of scores that is ignored.
        borderline: distance from the threshold within which rounding may change a label.
    """

    def __init__(self, reference: CallTable, candidate: CallTable, tolerance: float, borderline: float):
        self._reference, self._candidate = reference, candidate
        self._tolerance, self._borderline = tolerance, borderline
        keys = _keys(reference.ids, candidate.ids)
        self._repeats = [len(ids) - len(pc.unique(ids)) for ids in (reference.ids, candidate.ids)]
        self._rows = _matches(*keys)
        self._missing = [np.flatnonzero(~np.isin(ids, others)) for ids, others in (keys, keys[::-1])]
        labels = [table.labels.take(pa.array(rows)) for table, rows in self._sides()]
        self._differ = pc.not_equal(*labels).to_numpy(zero_copy_only=False)
        self._score_difference = self._differences()
        self._unscored = self._called_without_score()
        margins = [_taken(table.margins(), rows) for table, rows in self._sides()]
        self._margin = None if margins[0] is None or margins[1] is None else np.fmax(margins[0], margins[1])

    def _sides(self) -> list[tuple[CallTable, NDArray[np.int64]]]:
        return list(zip((self._reference, self._candidate), self._rows, strict=True))

    def _differences(self) -> NDArray[np.float64] | None:
        """Return the larger difference of both scores, (M,), NaN if neither run called; None without scores."""
        pairs = []
        for column in ("others", "virus"):
            first, second = (_taken(getattr(table, column), rows) for table, rows in self._sides())
            if first is not None and second is not None:
                pairs.append(np.abs(first - second))
        return np.fmax.reduce(pairs) if pairs else None

    def _called_without_score(self) -> NDArray[np.bool_]:
        """Return which ids both runs call alike while one of them has no finite score, (M,)."""
        unscored = np.zeros(len(self._differ), dtype=np.bool_)
        for table, rows in self._sides():
            for scores in (table.others, table.virus):
                if scores is not None:
                    unscored |= table.is_called()[rows] & ~np.isfinite(scores[rows])
        unscored &= ~self._differ
        return unscored

    def metrics(self) -> dict[str, Any]:
        """Return the metrics of ``compare.json``."""
        compared, disagreeing = len(self._differ), int(self._differ.sum())
        metrics: dict[str, Any] = {
            "reference": len(self._reference.ids),
            "candidate": len(self._candidate.ids),
            "compared": compared,
            "missing_in_candidate": len(self._missing[0]),
            "missing_in_reference": len(self._missing[1]),
            "repeated_ids": dict(zip(("reference", "candidate"), self._repeats, strict=True)),
            "same_label": compared - disagreeing,
            "label_agreement": _share(compared - disagreeing, compared),
            "labels": self._label_counts(),
            "scores": None,
        }
        if self._margin is not None:
            borderline = int((self._differ & (self._margin <= self._borderline)).sum())
            metrics["mismatches"] = {"borderline": borderline, "clear": disagreeing - borderline}
            metrics["clear_agreement"] = _share(compared - disagreeing + borderline, compared)
        if self._score_difference is not None:
            metrics["scores"] = self._score_metrics(self._score_difference)
        return metrics

    def _label_counts(self) -> list[dict[str, Any]]:
        """Return the number of each pair of labels."""
        pairs = pa.table(
            [table.labels.take(pa.array(rows)) for table, rows in self._sides()], names=["reference", "candidate"]
        )
        counted = pairs.group_by(["reference", "candidate"], use_threads=False).aggregate([([], "count_all")])
        rows = counted.rename_columns(["reference", "candidate", "count"]).to_pylist()
        return sorted(rows, key=lambda row: (-row["count"], row["reference"], row["candidate"]))

    def _score_metrics(self, differences: NDArray[np.float64]) -> dict[str, Any]:
        virus = [_taken(table.virus, rows) for table, rows in self._sides()]
        both = np.logical_and.reduce([np.isfinite(scores) for scores in virus if scores is not None])
        finite = differences[both]
        first, second = (scores[both] for scores in virus if scores is not None)
        varied = len(finite) > 1 and first.std() > 0 and second.std() > 0
        counts, _ = np.histogram(finite, _DIFFERENCES)
        return {
            "compared": len(finite),
            "missing": int(self._unscored.sum()),
            "mean": _number(finite, np.mean),
            "median": _number(finite, np.median),
            "max": _number(finite, np.max),
            "std": _number(finite, np.std),
            "within_tolerance": _share(int((finite <= self._tolerance).sum()), len(finite)),
            "correlation": float(np.corrcoef(first, second)[0, 1]) if varied else None,
            "histogram": [
                {"from": low, "to": high, "count": count}
                for low, high, count in zip(_DIFFERENCES, _DIFFERENCES[1:], counts.tolist(), strict=False)
            ],
        }

    def mismatches(self, limit: int | None) -> pa.Table:
        """Return the rows that differ: other labels by margin, missing ids, then other scores by difference.

        Args:
            limit: largest number of rows; None for all.
        """
        margin = np.zeros(len(self._differ)) if self._margin is None else np.nan_to_num(self._margin, nan=1.0)
        labels = np.flatnonzero(self._differ)
        labels = labels[np.argsort(-margin[labels], kind="stable")]
        found = [self._rows_that_differ("label", labels[:limit])]
        for kind, table, rows in zip(
            ("missing_in_candidate", "missing_in_reference"),
            (self._reference, self._candidate),
            self._missing,
            strict=True,
        ):
            found.append(_missing_rows(kind, table, rows[:limit]))
        if self._score_difference is not None:
            differences = np.where(self._unscored, np.inf, self._score_difference)
            scores = np.flatnonzero(~self._differ & (differences > self._tolerance))
            scores = scores[np.argsort(-differences[scores], kind="stable")]
            found.append(self._rows_that_differ("score", scores[:limit]))
        return pa.concat_tables(found).slice(0, limit)

    def _rows_that_differ(self, kind: str, matches: NDArray[np.int64]) -> pa.Table:
        columns: dict[str, Any] = {"kind": pa.array([kind] * len(matches), pa.string())}
        for name, (table, rows) in zip(("reference", "candidate"), self._sides(), strict=True):
            taken = rows[matches]
            columns |= {"id": table.ids.take(pa.array(taken)), f"{name}_label": table.labels.take(pa.array(taken))}
            columns[f"{name}_virus_score"] = _column(_taken(table.virus, taken), len(matches))
        columns["score_difference"] = _column(_taken(self._score_difference, matches), len(matches))
        columns["margin"] = _column(_taken(self._margin, matches), len(matches))
        return pa.table([columns[name] for name in MISMATCH_SCHEMA.names], schema=MISMATCH_SCHEMA)

    def virus_scores(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]] | None:
        """Return the scores that both runs have, and whether the labels differ; None without scores."""
        first, second = (_taken(table.virus, rows) for table, rows in self._sides())
        if first is None or second is None:
            return None
        both = np.isfinite(first) & np.isfinite(second)
        return first[both], second[both], self._differ[both]

    def warnings(self) -> list[str]:
        """Return the warnings that readers of the metrics need."""
        found = []
        if other := difference(
            self._reference.fingerprint, self._candidate.fingerprint, ("in the reference", "in the candidate")
        ):
            found.append(f"the two runs are not of the same kind: {other}")
        elif self._missing[0].size and self._missing[1].size and not self._reference.fingerprint:
            found.append("ids are missing on both sides: were both cut into chunks of the same length?")
        for name, count in zip(("reference", "candidate"), self._repeats, strict=True):
            if count:
                found.append(f"{count:,} rows of the {name} repeat an id; they were compared in their order")
        return found


def _matches(first: NDArray[np.int64], second: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the rows of both tables that have the same key, (M,) each, in the order of the first table."""
    _, *rows = np.intersect1d(first, second, assume_unique=True, return_indices=True)
    order = np.argsort(rows[0], kind="stable")
    return [one[order].astype(np.int64) for one in rows]


def _keys(first: pa.Array, second: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the keys of the rows of two tables: equal for the k-th occurrence of an id in both."""
    both = pa.concat_arrays([first.cast(pa.large_string()), second.cast(pa.large_string())])
    numbers = np.split(both.dictionary_encode().indices.to_numpy(), [len(first)])
    repeats = [_repeat_numbers(number) for number in numbers]
    factor = 1 + max((int(number.max(initial=0)) for number in repeats), default=0)
    keys = [number.astype(np.int64) * factor + repeat for number, repeat in zip(numbers, repeats, strict=True)]
    return keys[0], keys[1]


def _repeat_numbers(numbers: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return how often each number occurred before.

    >>> _repeat_numbers(np.array([7, 3, 7, 7])).tolist()
    [0, 0, 1, 2]
    """
    order = np.argsort(numbers, kind="stable")
    ordered = numbers[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(ordered) else order
    sizes = np.diff(np.append(starts, len(ordered)))
    repeats = np.empty(len(numbers), dtype=np.int64)
    repeats[order] = np.arange(len(numbers)) - np.repeat(starts, sizes)
    return repeats


def _missing_rows(kind: str, table: CallTable, rows: NDArray[np.int64]) -> pa.Table:
    has = "reference" if kind == "missing_in_candidate" else "candidate"
    nulls = pa.nulls(len(rows))
    columns = dict.fromkeys(MISMATCH_SCHEMA.names, nulls)
    columns |= {"id": table.ids.take(pa.array(rows)), "kind": pa.array([kind] * len(rows), pa.string())}
    columns |= {f"{has}_label": table.labels.take(pa.array(rows))}
    columns[f"{has}_virus_score"] = _column(_taken(table.virus, rows), len(rows))
    return pa.table({name: columns[name].cast(MISMATCH_SCHEMA.field(name).type) for name in MISMATCH_SCHEMA.names})


def _taken(values: NDArray[np.float64] | None, rows: NDArray[np.int64]) -> NDArray[np.float64] | None:
    return None if values is None else values[rows]


def _column(values: NDArray[np.float64] | None, length: int) -> pa.Array:
    return pa.nulls(length, pa.float64()) if values is None else pa.array(values, mask=np.isnan(values))


def _share(count: int, total: int) -> float | None:
    return count / total if total else None


def _number(values: NDArray[np.float64], what: Any) -> float | None:
    return float(what(values)) if len(values) else None
