"""Table and plot of the measured speeds."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from virnucpro_pl.benchmarking.measurement import BOTH, ENCODER, PREDICT_STEADY, Measurement, share_of_slower_encoder
from virnucpro_pl.host.stage_clock import DNABERT_S, ESM2

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH = 300  # wider than the table, so that the log is not cut to the terminal
_ENCODER, _WHOLE, _LIMIT = "#1f6f8b", "#e07b39", "#1a1a1a"
_BAR_INCHES, _MARGIN_INCHES, _LABEL_INCHES, _PANEL_INCHES = 0.32, 1.1, 2.2, 5.2
_ROOM_FOR_NUMBERS = 1.35  # width of a panel over its longest bar


def speed_table(measurements: Sequence[Measurement]) -> str:
    """Return a table of all measurements."""
    columns: list[tuple[str, Callable[[Measurement], str]]] = [
        ("part", lambda m: m.part),
        ("encoder", lambda m: m.encoder),
        ("precision", lambda m: m.precision),
        ("reads", lambda m: m.mix),
        ("sequences", lambda m: _number(m.sequences)),
        ("tokens/s", lambda m: _number(m.tokens_per_second)),
        ("TFLOP/s", lambda m: f"{m.tflops:.4g}"),
        ("of matrix rate", lambda m: _percent(m.share_of_matrix_rate)),
        ("packing", lambda m: _percent(m.packing_efficiency)),
        ("GPU", lambda m: "" if m.gpu_utilisation_percent is None else f"{m.gpu_utilisation_percent:.0f} %"),
        ("waiting", lambda m: _percent(m.wait_share)),
        ("of slower encoder", lambda m: _percent(share_of_slower_encoder(measurements, m))),
    ]
    table = Table(title="Speed", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, (heading, _) in enumerate(columns):
        table.add_column(heading, justify="left" if number < 4 else "right", no_wrap=True)
    for found in measurements:
        table.add_row(*(text(found) for _, text in columns))
    stream = io.StringIO()
    Console(file=stream, width=_WIDTH).print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def progress_line(found: Measurement) -> str:
    """Return one measurement as a log line."""
    labels = " ".join(filter(None, (found.part, found.encoder, found.precision, found.mix)))
    return f"{labels}: {found.tokens_per_second:,.0f} tokens/s, {found.tflops:.4g} TFLOP/s in {found.seconds:.3g} s"


def plot_speeds(measurements: Sequence[Measurement], title: str, path: Path) -> None:
    """Draw tokens per second, a panel for each encoder and read length, with the rate of matrix products.

    ``predict`` is drawn beside ESM-2, whose tokens it counts; its limit includes DNABERT-S.
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
        longest = max(max(bar.tokens_per_second, bar.tokens_per_second_limit or 0.0) for bars in row for bar in bars)
        axes[0].set_xlim(0, _ROOM_FOR_NUMBERS * longest)
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=3, frameon=False, fontsize=9)
    figure.savefig(path, dpi=150)


def _bars(measurements: Sequence[Measurement], encoder: str, mix: str) -> list[Measurement]:
    """Return the measurements of a panel, top to bottom."""
    wanted = {(ENCODER, encoder), *([(PREDICT_STEADY, BOTH)] if encoder == ESM2 else [])}
    return [found for found in measurements if found.mix == mix and (found.part, found.encoder) in wanted]


def _draw(ax: "Axes", bars: Sequence[Measurement]) -> None:
    for name, colour, part in (("encoder", _ENCODER, ENCODER), ("whole predict", _WHOLE, PREDICT_STEADY)):
        positions = [i for i, bar in enumerate(bars) if bar.part == part]
        ax.barh(positions, [bars[i].tokens_per_second for i in positions], color=colour, height=0.7, label=name)
    limits = [bar.tokens_per_second_limit or 0.0 for bar in bars]
    label = "limit: the same matrix products alone"
    ax.scatter(limits, range(len(bars)), marker="|", s=220, linewidths=2.2, color=_LIMIT, label=label, zorder=3)
    for position, bar in enumerate(bars):
        text = f"{bar.tokens_per_second:,.0f}  ({bar.share_of_matrix_rate:.0%})"
        ax.text(1.0, position, text, transform=ax.get_yaxis_transform(), ha="right", va="center", fontsize=8)
    names = {ENCODER: "encoder", PREDICT_STEADY: "whole predict"}
    ax.set_yticks(range(len(bars)), [f"{names[bar.part]}, {bar.precision}" for bar in bars], fontsize=9)
    ax.set_ylim(len(bars) - 0.4, -0.6)
    ax.set_xlabel("tokens/s (share of the limit)", fontsize=9)
    ax.tick_params(axis="x", labelsize=8)
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.locator_params(axis="x", nbins=6)
    ax.spines[["top", "right"]].set_visible(False)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"
