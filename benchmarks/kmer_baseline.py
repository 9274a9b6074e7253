"""How far k-mer counts alone get: logistic regression on the fragments a head was trained and tested on.

    python benchmarks/kmer_baseline.py TRAINING_DATASET SPLIT.json [TEST_DATASET ...] [--against metrics.json]

Trained on the fragments of the training part of the first dataset, tested on the test part of the others (or of the
first one), length by length, with the same resampling of groups as ``test``. With ``--against``, the differences to a
head's figures are printed too. The last line is what guessing gets, and how often the larger class is right.
"""

import argparse
import json
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from virnucpro_pl.errors import UserError
from virnucpro_pl.sequence.layout import TableReader
from virnucpro_pl.training.evaluation import Figures, ScoredChunks, by_length, figures
from virnucpro_pl.training.labelled_store import LabelledStore
from virnucpro_pl.training.scoring import join
from virnucpro_pl.training.splits import TEST, TRAIN, apply_split

_COMPLEMENT = str.maketrans("ACGT", "TGCA")
_THRESHOLD = 0.5
_NO_BASE = 4


def canonical_columns(k: int) -> NDArray[np.int64]:
    """(4 ** k,) column of each k-mer; one and its reverse complement share one."""
    kmers = ["".join(letters) for letters in product("ACGT", repeat=k)]
    names = [min(kmer, kmer[::-1].translate(_COMPLEMENT)) for kmer in kmers]
    return np.unique(names, return_inverse=True)[1]


def frequencies(sequences: list[bytes], k: int, columns: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N, canonical k-mers) shares of each sequence's k-mers; those with other letters than A, C, G, T do not count."""
    code = np.full(256, _NO_BASE, dtype=np.int64)
    code[np.frombuffer(b"ACGT", dtype=np.uint8)] = range(4)
    counts = np.zeros((len(sequences), columns.max() + 1))
    for row, sequence in enumerate(sequences):
        bases = code[np.frombuffer(sequence.upper(), dtype=np.uint8)]
        if len(bases) < k:
            continue
        windows = np.lib.stride_tricks.sliding_window_view(bases, k)
        windows = windows[(windows < _NO_BASE).all(axis=1)]
        found = np.bincount(columns[windows @ 4 ** np.arange(k - 1, -1, -1)], minlength=counts.shape[1])
        counts[row] = found / max(1, found.sum())
    return counts


def features(store: LabelledStore, k: int) -> NDArray[np.float64]:
    """(R, canonical k-mers) of the records of a dataset."""
    columns = canonical_columns(k)
    batches = TableReader(store.folder / "records.arrow", "sequence").batches()
    parts = [frequencies(batch.column("sequence").to_pylist(), k, columns) for batch in batches]
    return np.concatenate([np.zeros((0, columns.max() + 1)), *parts])


def fit(store: LabelledStore, split: Path, k: int) -> Pipeline:
    """Fit the classifier to the training part."""
    chosen = apply_split(store, split).parts == TRAIN
    if not 0 < store.labels[chosen].sum() < chosen.sum():
        raise UserError(f"{split}: its training part of {store.folder} does not have both classes")
    classifier = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000))
    return classifier.fit(features(store, k)[chosen], store.labels[chosen])


def tested(classifier: Pipeline, store: LabelledStore, split: Path, k: int) -> ScoredChunks:
    """Score the test part."""
    where = apply_split(store, split)
    chosen = where.parts == TEST
    scores = classifier.predict_proba(features(store, k)[chosen])[:, 1] if chosen.any() else np.zeros(0)
    column = "group" if where.by == "split" else where.by
    return ScoredChunks(store.labels[chosen], scores, store.column(column)[chosen], store.lengths[chosen])


def line(name: str, found: Figures, other: Figures | None) -> str:
    """Render one row; NA for what one class alone does not define."""
    if found["auroc"] is None:
        return f"{name:>8} {found['chunks']:>8,}       NA (one class only)"
    low, high = found.get("intervals", {}).get("auroc", (None, None))
    interval = "(no interval)" if low is None else f"({low:.3f} to {high:.3f})"
    text = f"{name:>8} {found['chunks']:>8,} {found['auroc']:>8.3f} {interval} {found['average_precision']:>8.3f}"
    if other and other.get("auroc") is not None:
        text += f"   head {other['auroc']:.3f}, {other['auroc'] - found['auroc']:+.3f}"
    return text


def guessing_line(found: Figures) -> str:
    """Render what guessing gets."""
    share = found["viral"] / found["chunks"]
    larger = max(share, 1 - share)
    return f"{'guessing':>8} {found['chunks']:>8,} {0.5:>8.3f} {share:.3f}; the larger class is {larger:.3f} of all"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("training", type=Path)
    parser.add_argument("split", type=Path)
    parser.add_argument("test", type=Path, nargs="*")
    parser.add_argument("--k", type=int, default=4)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--resamples", type=int, default=1000)
    asked = parser.parse_args()
    try:
        compare(asked)
    except UserError as error:
        raise SystemExit(str(error)) from error


def compare(asked: argparse.Namespace) -> None:
    training = LabelledStore(asked.training)
    classifier = fit(training, asked.split, asked.k)
    stores = [LabelledStore(path) for path in asked.test] or [training]
    chunks = join([tested(classifier, store, asked.split, asked.k) for store in stores])
    head = json.loads(asked.against.read_text(encoding="utf-8")) if asked.against else {}
    if not len(chunks.labels):
        raise UserError(f"{asked.split}: no fragment of these datasets is in its test part")
    overall = figures(chunks, _THRESHOLD, asked.resamples)
    print(f"{asked.k}-mer logistic regression\n  length   chunks    AUROC (95 % interval)      average precision")
    print(line("all", overall, head.get("overall")))
    for length, found in by_length(chunks, _THRESHOLD, asked.resamples, 0).items():
        print(line(str(length), found, head.get("by_length", {}).get(str(length))))
    print(guessing_line(overall))


if __name__ == "__main__":
    main()
