"""Plots of a test."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import binary_precision_recall_curve, binary_roc

from virnucpro_pl.errors import escaped
from virnucpro_pl.files.durable import replacing
from virnucpro_pl.files.output_files import EVALUATION_PLOTS
from virnucpro_pl.training.evaluation import Figures, ScoredChunks

ROC, PRECISION_RECALL, CALIBRATION, LENGTHS, GROUPS = EVALUATION_PLOTS
_OTHERS, _VIRUS, _GUESSING = "#1f6f8b", "#e07b39", "#8a9299"
_MOST_POINTS = 2000
_BINS = 10
_MOST_GROUPS = 15  # of each class
_FEWEST = 10
"""Fewest chunks of a group in the plot, unless all groups have fewer"""
_LONGEST_NAME = 36
_BAR_INCHES = 0.27


def plot_all(
    folder: Path, chunks: ScoredChunks, metrics: dict[str, Any], part: str, uncalibrated: ScoredChunks | None = None
) -> None:
    """Write the plots in ``EVALUATION_PLOTS`` as PNG; ROC and precision-recall curves need both classes.

    Args:
        folder: folder of the files.
        chunks: chunks of the tested split.
        metrics: content of ``metrics.json``.
        part: name of the split.
        uncalibrated: the same chunks with scores before temperature scaling; None without scaling.
    """
    overall = metrics["overall"]
    title = f"{part} part: {overall['chunks']:,} chunks, {overall['viral']:,} viral"
    if overall["auroc"] is not None:
        _plot_roc(folder / ROC, chunks, metrics, title)
        _plot_precision_recall(folder / PRECISION_RECALL, chunks, metrics, title)
    _plot_calibration(folder / CALIBRATION, chunks, uncalibrated, metrics, title)
    _plot_lengths(folder / LENGTHS, metrics["by_length"], title)
    _plot_groups(folder / GROUPS, metrics["by_group"], title)


def _figure(width: float = 5.0, height: float = 4.4) -> Any:
    from matplotlib.figure import Figure  # slow to import

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        figure.savefig(unfinished, dpi=150, format="png")


def _thinned(*curves: NDArray[Any]) -> list[NDArray[Any]]:
    """Thin curves to the number of points that a plot shows."""
    step = max(1, len(curves[0]) // _MOST_POINTS)
    return [np.concatenate([curve[::step], curve[-1:]]) for curve in curves]


def _with_interval(overall: Figures, name: str) -> str:
    low, high = overall.get("intervals", {}).get(name, (None, None))
    return f"{overall[name]:.3f}" + (f" ({low:.3f} to {high:.3f})" if low is not None else "")


def _finish(figure: Any, axes: Any, title: str, columns: int = 1) -> None:
    """Add title, grid and, below the axes, legend."""
    figure.suptitle(title, fontsize=11)
    axes.grid(alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)


def _mark_threshold(axes: Any, metrics: dict[str, Any], x: str, y: str) -> None:
    """Mark two metrics at the threshold, with their intervals."""
    overall = metrics["overall"]
    if overall[x] is None or overall[y] is None:
        return
    limits = [overall.get("intervals", {}).get(name, (overall[name], overall[name])) for name in (x, y)]
    x_bars, y_bars = (_bars([overall[name]], [limit]) for name, limit in zip((x, y), limits, strict=True))
    axes.errorbar(
        overall[x], overall[y], xerr=x_bars, yerr=y_bars, fmt="o", color="black", capsize=3, linewidth=1, zorder=3,
        clip_on=False, label=f"at the threshold {metrics['threshold']:.3f}, 95 % intervals",
    )  # fmt: skip


def _plot_roc(path: Path, chunks: ScoredChunks, metrics: dict[str, Any], title: str) -> None:
    fpr, tpr, _ = binary_roc(torch.from_numpy(chunks.scores), torch.from_numpy(chunks.labels.astype(np.int64)))
    figure = _figure(height=5.3)
    axes = figure.subplots()
    label = f"AUROC {_with_interval(metrics['overall'], 'auroc')}"
    axes.plot(*_thinned(fpr.numpy(), tpr.numpy()), color=_OTHERS, label=label)
    axes.plot([0, 1], [0, 1], color=_GUESSING, linestyle=":", label="guessing")
    _mark_threshold(axes, metrics, "false_positive_rate", "recall")
    axes.set(xlabel="false-positive rate (others called viral)", ylabel="recall (viral called viral)")
    axes.set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
    _finish(figure, axes, title)
    _save(figure, path)


def _plot_precision_recall(path: Path, chunks: ScoredChunks, metrics: dict[str, Any], title: str) -> None:
    precision, recall, _ = binary_precision_recall_curve(
        torch.from_numpy(chunks.scores), torch.from_numpy(chunks.labels.astype(np.int64))
    )
    overall = metrics["overall"]
    figure = _figure(height=5.3)
    axes = figure.subplots()
    label = f"average precision {_with_interval(overall, 'average_precision')}"
    precision[-1] = precision[-2]  # 1 by definition if nothing is called, which looks like a success
    curve = _thinned(recall.numpy(), precision.numpy())
    axes.step(*curve, where="post", color=_OTHERS, label=label)
    share = overall["viral"] / overall["chunks"]
    axes.axhline(share, color=_GUESSING, linestyle=":", label=f"guessing: {share:.3f}, the share that is viral")
    _mark_threshold(axes, metrics, "recall", "precision")
    axes.set(xlabel="recall (viral called viral)", ylabel="precision (viral among those called)")
    axes.set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
    _finish(figure, axes, title)
    _save(figure, path)


def _plot_calibration(
    path: Path, chunks: ScoredChunks, uncalibrated: ScoredChunks | None, metrics: dict[str, Any], title: str
) -> None:
    figure = _figure(height=6.4)
    curve, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    curve.plot([0, 1], [0, 1], color=_GUESSING, linestyle=":", label="perfect")
    if uncalibrated is not None:
        error = metrics["uncalibrated"]["calibration_error"]
        label = f"as trained, calibration error {error:.3f}"
        curve.plot(*_reliability(uncalibrated), "s--", color=_GUESSING, label=label)
    error, temperature = metrics["overall"]["calibration_error"], metrics["temperature"]
    label = f"temperature {temperature:.3g}, calibration error {error:.3f}"
    curve.plot(*_reliability(chunks), "o-", color=_OTHERS, label=label)
    for axes in (curve, counts):
        axes.axvline(metrics["threshold"], color="black", linewidth=0.8, label=f"threshold {metrics['threshold']:.3f}")
    curve.set(ylabel="share of chunks that is viral", xlim=(0, 1), ylim=(-0.02, 1.02))
    both = [chunks.scores[chunks.labels == label] for label in (0, 1)]
    edges = np.linspace(0, 1, 2 * _BINS + 1)
    counts.hist(both, bins=edges, stacked=True, color=[_OTHERS, _VIRUS], label=["others", "virus"])
    counts.set(xlabel="chunk score", ylabel="chunks")
    counts.yaxis.set_major_formatter("{x:,.0f}")
    counts.yaxis.get_major_locator().set_params(integer=True, nbins=4)
    counts.legend(*(one[1:] for one in counts.get_legend_handles_labels()), fontsize=8, ncols=2, frameon=False,
                  loc="lower right", bbox_to_anchor=(1, 0.98), borderpad=0)  # fmt: skip
    _finish(figure, curve, title)
    _save(figure, path)


def _reliability(chunks: ScoredChunks) -> tuple[list[float], list[float]]:
    """Return mean score and viral share of the chunks in each tenth of the scores."""
    places = np.clip((chunks.scores * _BINS).astype(np.int64), 0, _BINS - 1)
    sizes = np.bincount(places, minlength=_BINS)
    filled = np.flatnonzero(sizes)
    scores, labels = (np.bincount(places, values, minlength=_BINS) for values in (chunks.scores, chunks.labels))
    return (scores[filled] / sizes[filled]).tolist(), (labels[filled] / sizes[filled]).tolist()


def _plot_lengths(path: Path, lengths: dict[str, Figures], title: str) -> None:
    figure = _figure(width=max(5.0, 1.4 + 0.75 * len(lengths)), height=4.8)
    axes = figure.subplots()
    if not lengths:
        axes.text(0.5, 0.25, "no length has enough chunks of both classes", transform=axes.transAxes, ha="center")
    for number, (name, label) in enumerate({"auroc": "AUROC", "recall": "recall at the threshold"}.items()):
        values = [one[name] for one in lengths.values()]
        limits = [one.get("intervals", {}).get(name, (one[name], one[name])) for one in lengths.values()]
        places = [place + 0.14 * (number - 0.5) for place in range(len(lengths))]
        axes.errorbar(
            places, values, yerr=_bars(values, limits), fmt="os"[number], color=(_OTHERS, _VIRUS)[number], capsize=3,
            label=f"{label}, 95 % intervals",
        )  # fmt: skip
    axes.set_xticks(range(len(lengths)), [f"{length}\n({one['chunks']:,})" for length, one in lengths.items()])
    axes.axhline(0.5, color=_GUESSING, linestyle=":", label="AUROC of guessing")
    axes.set(xlabel="chunk length, nt (number of chunks)", ylabel="AUROC, recall", ylim=(0, 1.02))
    axes.set_xlim(-0.6, max(len(lengths), 1) - 0.4)
    _finish(figure, axes, title)
    _save(figure, path)


def _plot_groups(path: Path, groups: Sequence[dict[str, Any]], title: str) -> None:
    panels = []
    for name, wrong in (("virus", "viral chunks missed"), ("others", "other chunks called viral")):
        of_class = [one for one in groups if one["class"] == name]
        large = [one for one in of_class if one["chunks"] >= _FEWEST] or of_class
        rows = [(_share_wrong(one), one["chunks"], one["group"]) for one in large]
        worst = sorted(rows, key=lambda row: (-row[0], -row[1], row[2]))[:_MOST_GROUPS]
        if worst:
            panels.append((name, f"{wrong}: the worst {len(worst)} of {len(of_class)} groups", worst))
    heights = [len(worst) * _BAR_INCHES + 0.8 for _, _, worst in panels]
    figure = _figure(width=6.6, height=sum(heights) + 0.6)
    grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (name, label, worst) in zip(grid, panels, strict=True):
        places = range(len(worst))
        axes.barh(places, [row[0] for row in worst], color=_VIRUS if name == "virus" else _OTHERS, height=0.7)
        for place, (share, size, _) in zip(places, worst, strict=True):
            axes.text(share + 0.01, place, f"{share:.0%} of {size:,}", va="center", fontsize=8)
        # Names are untrusted: markup in them is not interpreted.
        axes.set_yticks(places, [_shown(row[2]) for row in worst], fontsize=8, parse_math=False)
        axes.set(xlim=(0, 1.2), ylim=(len(worst) - 0.4, -0.6), xticks=np.linspace(0, 1, 6))
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(label, fontsize=10, loc="left")
    grid[-1].set_xlabel("share of the group's chunks", fontsize=9)
    figure.suptitle(title, fontsize=11)
    _save(figure, path)


def _share_wrong(group: dict[str, Any]) -> float:
    share = float(group["share_called_viral"])
    return 1 - share if group["class"] == "virus" else share


def _shown(name: str) -> str:
    """Return the name of a group as a label, short and in letters of the font."""
    text = escaped(name).encode("latin-1", "backslashreplace").decode("latin-1") or "(none)"
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 1]}…"


def _bars(values: Sequence[float], limits: Sequence[tuple[float, float]]) -> list[list[float]]:
    pairs = [(max(0.0, value - low), max(0.0, high - value)) for value, (low, high) in zip(values, limits, strict=True)]
    return [[low for low, _ in pairs], [high for _, high in pairs]]
