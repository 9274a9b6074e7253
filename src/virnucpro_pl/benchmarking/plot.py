"""The speeds as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from virnucpro_pl.benchmarking.measurement import BOTH, ENCODER, OURS, PREDICT_STEADY, Measurement
from virnucpro_pl.host.stage_clock import DNABERT_S, ESM2

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OURS, _WHOLE, _OTHERS, _LIMIT = "#1f6f8b", "#e07b39", "#b0b7bd", "#1a1a1a"
_BAR_INCHES, _MARGIN_INCHES, _LABEL_INCHES, _PANEL_INCHES = 0.32, 1.1, 2.2, 5.2
_ROOM_FOR_NUMBERS = 1.35  # width of a panel over its longest bar


def plot_speeds(measurements: Sequence[Measurement], title: str, path: Path) -> None:
    """Draw tokens per second of each engine, a panel for each encoder and length of reads, with the matrix rate.

    The whole of ``predict`` stands beside ESM-2, in whose tokens it is counted; its limit includes DNABERT-S.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    mixes = list(dict.fromkeys(found.mix for found in measurements if found.part == ENCODER))
    panels = {encoder: [_bars(measurements, encoder, mix) for mix in mixes] for encoder in (ESM2, DNABERT_S)}
    heights = [max(map(len, row)) * _BAR_INCHES + _MARGIN_INCHES for row in panels.values()]
    figure = Figure(figsize=(_LABEL_INCHES + _PANEL_INCHES * len(mixes), sum(heights) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(panels), len(mixes), squeeze=False, height_ratios=heights, sharex="row", sharey="row")
    for axes, (encoder, row) in zip(grid, panels.items(), strict=True):
        for ax, mix, bars in zip(axes, mixes, row, strict=True):
            _draw(ax, bars)
            ax.set_title(f"{encoder}, reads of {mix}", loc="left", fontsize=10)
        axes[0].set_xlim(0, _ROOM_FOR_NUMBERS * max(_longest(bar) for bars in row for bar in bars))
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=4, frameon=False, fontsize=9)
    figure.savefig(path, dpi=150)


def _bars(measurements: Sequence[Measurement], encoder: str, mix: str) -> list[Measurement]:
    """What belongs into a panel, top to bottom."""
    wanted = {(ENCODER, encoder), *([(PREDICT_STEADY, BOTH)] if encoder == ESM2 else [])}
    return [found for found in measurements if found.mix == mix and (found.part, found.encoder) in wanted]


def _longest(bar: Measurement) -> float:
    return max(bar.tokens_per_second, bar.tokens_per_second_limit or 0.0)


def _draw(ax: "Axes", bars: Sequence[Measurement]) -> None:
    for name, colour, places in (
        ("virnucpro_pl", _OURS, [i for i, bar in enumerate(bars) if bar.engine == OURS and bar.part == ENCODER]),
        ("virnucpro_pl, whole predict", _WHOLE, [i for i, bar in enumerate(bars) if bar.part == PREDICT_STEADY]),
        ("other engines", _OTHERS, [i for i, bar in enumerate(bars) if bar.engine != OURS]),
    ):
        ax.barh(places, [bars[i].tokens_per_second for i in places], color=colour, height=0.7, label=name)
    limits = [bar.tokens_per_second_limit or 0.0 for bar in bars]
    label = "limit: the same matrix products alone"
    ax.scatter(limits, range(len(bars)), marker="|", s=220, linewidths=2.2, color=_LIMIT, label=label, zorder=3)
    for place, bar in enumerate(bars):
        text = f"{bar.tokens_per_second:,.0f}  ({bar.share_of_matrix_rate:.0%})"
        ax.text(1.0, place, text, transform=ax.get_yaxis_transform(), ha="right", va="center", fontsize=8)
    ax.set_yticks(range(len(bars)), [_label(bar) for bar in bars], fontsize=9)
    ax.set_ylim(len(bars) - 0.4, -0.6)
    ax.set_xlabel("tokens/s (share of the limit)", fontsize=9)
    ax.tick_params(axis="x", labelsize=8)
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.locator_params(axis="x", nbins=6)
    ax.spines[["top", "right"]].set_visible(False)


def _label(bar: Measurement) -> str:
    engine = "whole predict" if bar.part == PREDICT_STEADY else bar.engine
    return f"{engine}, {bar.precision}"
