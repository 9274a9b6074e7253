"""The pictures of a test."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import binary_precision_recall_curve, binary_roc

from virnucpro_pl.durable import replacing
from virnucpro_pl.training.evaluation import Figures, ScoredChunks

ROC, PRECISION_RECALL, CALIBRATION, LENGTHS = "roc.png", "precision_recall.png", "calibration.png", "lengths.png"
PLOTS = (ROC, PRECISION_RECALL, CALIBRATION, LENGTHS)
_MOST_POINTS = 2000
_BINS = 10


def plot_all(folder: Path, chunks: ScoredChunks, metrics: dict[str, Any], part: str) -> None:
    """Draw what ``PLOTS`` names, as PNG.

    Args:
        folder: of the files.
        chunks: of the part that was tested.
        metrics: as in ``metrics.json``.
        part: what it is called.
    """
    overall = metrics["overall"]
    title = f"{part}: {overall['chunks']:,} chunks, {overall['viral']:,} viral"
    if overall["auroc"] is not None:
        _plot_roc(folder / ROC, chunks, overall, title)
        _plot_precision_recall(folder / PRECISION_RECALL, chunks, overall, title)
    _plot_calibration(folder / CALIBRATION, chunks, metrics, title)
    _plot_lengths(folder / LENGTHS, metrics["by_length"], title)


def _figure(width: float = 5.0, height: float = 4.4) -> Any:
    from matplotlib.figure import Figure  # takes half a second to import

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        figure.savefig(unfinished, dpi=150, format="png")


def _thinned(*curves: NDArray[Any]) -> list[NDArray[Any]]:
    """A picture shows no more points than this."""
    step = max(1, len(curves[0]) // _MOST_POINTS)
    return [np.concatenate([curve[::step], curve[-1:]]) for curve in curves]


def _with_interval(overall: Figures, name: str) -> str:
    low, high = overall.get("intervals", {}).get(name, (None, None))
    return f"{overall[name]:.3f}" + (f" ({low:.3f} to {high:.3f})" if low is not None else "")


def _plot_roc(path: Path, chunks: ScoredChunks, overall: Figures, title: str) -> None:
    fpr, tpr, _ = binary_roc(torch.from_numpy(chunks.scores), torch.from_numpy(chunks.labels.astype(np.int64)))
    figure = _figure()
    axes = figure.subplots()
    axes.plot(*_thinned(fpr.numpy(), tpr.numpy()), label=f"AUROC {_with_interval(overall, 'auroc')}")
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="guessing")
    axes.plot(overall["false_positive_rate"], overall["recall"], "o", color="black", label="at the threshold")
    axes.set(xlabel="false-positive rate", ylabel="recall", title=title, xlim=(0, 1), ylim=(0, 1.01))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    _save(figure, path)


def _plot_precision_recall(path: Path, chunks: ScoredChunks, overall: Figures, title: str) -> None:
    precision, recall, _ = binary_precision_recall_curve(
        torch.from_numpy(chunks.scores), torch.from_numpy(chunks.labels.astype(np.int64))
    )
    figure = _figure()
    axes = figure.subplots()
    label = f"average precision {_with_interval(overall, 'average_precision')}"
    axes.step(*_thinned(recall.numpy(), precision.numpy()), where="post", label=label)
    share = overall["viral"] / overall["chunks"]
    axes.axhline(share, color="grey", linestyle=":", label="guessing")
    if overall["precision"] is not None:
        axes.plot(overall["recall"], overall["precision"], "o", color="black", label="at the threshold")
    axes.set(xlabel="recall", ylabel="precision", title=title, xlim=(0, 1), ylim=(0, 1.01))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    _save(figure, path)


def _plot_calibration(path: Path, chunks: ScoredChunks, metrics: dict[str, Any], title: str) -> None:
    figure = _figure(height=5.2)
    curve, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    edges = np.linspace(0, 1, _BINS + 1)
    places = np.clip(np.digitize(chunks.scores, edges) - 1, 0, _BINS - 1)
    filled = np.flatnonzero(np.bincount(places, minlength=_BINS))
    mean = [float(chunks.scores[places == number].mean()) for number in filled]
    share = [float(chunks.labels[places == number].mean()) for number in filled]
    error = metrics["overall"]["calibration_error"]
    curve.plot([0, 1], [0, 1], color="grey", linestyle=":", label="perfect")
    curve.plot(mean, share, marker="o", label=f"expected calibration error {error:.3f}")
    curve.axvline(metrics["threshold"], color="black", linewidth=0.8, label=f"threshold {metrics['threshold']:.3f}")
    curve.set(ylabel="share that is viral", title=title, xlim=(0, 1), ylim=(-0.02, 1.02))
    curve.legend(loc="upper left")
    curve.grid(alpha=0.3)
    both = [chunks.scores[chunks.labels == label] for label in (0, 1)]
    counts.hist(both, bins=edges, stacked=True, label=["others", "virus"])
    counts.set(xlabel="chunk score", ylabel="chunks")
    counts.legend()
    _save(figure, path)


def _plot_lengths(path: Path, lengths: dict[str, Figures], title: str) -> None:
    figure = _figure(width=6.0)
    axes = figure.subplots()
    places = range(len(lengths))
    for number, (name, label) in enumerate({"auroc": "AUROC", "recall": "recall at the threshold"}.items()):
        values = [one[name] for one in lengths.values()]
        limits = [one.get("intervals", {}).get(name, (one[name], one[name])) for one in lengths.values()]
        bars = _bars(values, limits)
        axes.errorbar(
            [place + 0.08 * (number - 0.5) for place in places], values, yerr=bars, fmt="o", capsize=3, label=label
        )
    axes.set_xticks([*places], [f"{length}\n({one['chunks']:,})" for length, one in lengths.items()])
    axes.axhline(0.5, color="grey", linestyle=":", label="AUROC of guessing")
    axes.set(xlabel="chunk length, nt (chunks)", ylabel="with 95 % confidence intervals", title=title, ylim=(0, 1.02))
    axes.set_xlim(-0.6, max(len(lengths), 1) - 0.4)
    axes.grid(alpha=0.3, axis="y")
    axes.legend(loc="best")
    _save(figure, path)


def _bars(values: Sequence[float], limits: Sequence[tuple[float, float]]) -> list[list[float]]:
    pairs = [(max(0.0, value - low), max(0.0, high - value)) for value, (low, high) in zip(values, limits, strict=True)]
    return [[low for low, _ in pairs], [high for _, high in pairs]]
