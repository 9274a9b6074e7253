"""Plot of a comparison."""

from pathlib import Path

import numpy as np

from virnucpro_pl.files.durable import replacing
from virnucpro_pl.files.output_files import SCATTER
from virnucpro_pl.results.comparison import Comparison

_BINS = 200
_MOST_POINTS = 5000
_SAME, _OTHER = "#1f6f8b", "#d1495b"
_SMALLEST = 1e-9  # smaller differences are drawn here


def plot_comparison(folder: Path, comparison: Comparison, tolerance: float, title: str) -> Path | None:
    """Plot the virus scores of both runs against each other, and a histogram of their differences.

    Args:
        folder: folder of the plot.
        comparison: the comparison.
        tolerance: largest difference that is ignored.
        title: title of the plot.

    Returns:
        The file; None if a table has no scores, and nothing is drawn.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure  # takes half a second to import

    scores = comparison.virus_scores()
    if scores is None or not len(scores[0]):
        return None
    reference, candidate, differ = scores
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    plane, histogram = figure.subplots(1, 2)
    density = plane.hist2d(
        reference, candidate, bins=_BINS, range=((0, 1), (0, 1)), cmin=1, norm=LogNorm(), cmap="viridis_r"
    )
    figure.colorbar(density[3], ax=plane, label="rows", shrink=0.8)
    shown = np.flatnonzero(differ)[:: max(1, int(differ.sum()) // _MOST_POINTS)]
    if len(shown):
        label = f"other label ({int(differ.sum()):,})"
        plane.plot(reference[shown], candidate[shown], ".", color=_OTHER, markersize=4, label=label)
        plane.legend(loc="upper left", fontsize=9)
    plane.set(xlabel="virus score, reference", ylabel="virus score, candidate", xlim=(0, 1), ylim=(0, 1))
    plane.set_aspect("equal")

    differences = np.maximum(np.abs(reference - candidate), _SMALLEST)
    edges = np.logspace(np.log10(_SMALLEST), 0, 46)
    histogram.hist(differences, bins=edges, color=_SAME)
    histogram.axvline(max(tolerance, _SMALLEST), color="black", linestyle=":", label=f"tolerance {tolerance:g}")
    histogram.set(xscale="log", yscale="log", xlabel="difference of the virus scores (≤ 1e-9 at the left)")
    histogram.set(ylabel="rows")
    histogram.legend(fontsize=9)
    figure.suptitle(title, fontsize=11)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / SCATTER) as unfinished:
        figure.savefig(unfinished, dpi=150, format="png")
    return folder / SCATTER
