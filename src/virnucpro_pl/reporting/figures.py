"""Figures of a run for papers: scores, lengths, and scores along sequences."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from virnucpro_pl.errors import escaped
from virnucpro_pl.files.durable import replacing
from virnucpro_pl.files.output_files import FIGURES_FOLDER
from virnucpro_pl.reporting.gathering import CALLS, LENGTH_EDGES, SCORE_BINS, ReportData, Track, gather
from virnucpro_pl.reporting.wording import CALL_MEANING

_COLOURS = dict(zip(CALLS, ("#c8553d", "#2f7f96", "#b08d2e", "#a9b3bd"), strict=True))
_MOST_POINTS = 4000
_LONGEST_NAME = 60
_DPI = 300


def write_figures(folder: Path, formats: Sequence[str], records: list[str], max_tracks: int) -> list[Path]:
    """Draw a finished run into ``figures/`` of its output folder; return the files.

    Args:
        folder: output folder.
        formats: formats of the figures.
        records: ids of the sequences to draw along their length; empty: the most viral, then the longest ones.
        max_tracks: largest number of those.

    Raises:
        UserError: the folder holds no finished run, or a sequence is not in it.
    """
    data = gather(folder, 0, max_tracks, _MOST_POINTS, records)
    threshold = data.run["identity"]["results.threshold"]
    pictures = {"scores": partial(_score_figure, data), "lengths": partial(_length_figure, data)}
    if data.tracks:
        pictures["tracks"] = partial(_track_figure, data.tracks)
    figures = folder / FIGURES_FOLDER
    figures.mkdir(exist_ok=True)
    # Drawn anew for each format: saving changes the layout a little.
    return [_save(draw(threshold), figures / name, kind) for name, draw in pictures.items() for kind in formats]


def _figure(width: float, height: float, rows: int = 1) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # takes half a second to import

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, 1, squeeze=False)[:, 0]
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, path: Path, kind: str) -> Path:
    import matplotlib

    target = path.with_name(f"{path.name}.{kind}")
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)  # for reproducible bytes
    with (
        replacing(target) as unfinished,
        matplotlib.rc_context({"svg.hashsalt": "virnucpro_pl", "svg.fonttype": "none"}),
    ):
        figure.savefig(unfinished, dpi=_DPI, format=kind, metadata=metadata)
    return target


def _score_figure(data: ReportData, threshold: float) -> Any:
    figure, (axes,) = _figure(5.5, 3.6)
    edges = np.linspace(0, 1, SCORE_BINS + 1)
    bottom = np.zeros(SCORE_BINS)
    for call, row in zip(CALLS[:-1], data.record_scores, strict=False):
        if row.any():
            label = f"{CALL_MEANING[call]} ({int(row.sum()):,})"
            axes.bar(edges[:-1], row, 1 / SCORE_BINS, bottom, align="edge", color=_COLOURS[call], label=label)
            bottom += row
    axes.axvline(threshold, color="black", linestyle=":", linewidth=1)
    axes.set(xlabel="highest virus score of the record", ylabel="records", xlim=(0, 1))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    if bottom.any():
        axes.legend(frameon=False, fontsize=9)
    return figure


def _length_figure(data: ReportData, _: float) -> Any:
    figure, (axes,) = _figure(5.5, 3.6)
    filled = np.flatnonzero(data.lengths.sum(axis=0))
    first, last = (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, 1)
    low, high = LENGTH_EDGES[first:last], LENGTH_EDGES[first + 1 : last + 1]
    bottom = np.zeros(last - first)
    for call, row in zip(CALLS, data.lengths[:, first:last], strict=True):
        if row.any():
            label = f"{CALL_MEANING[call]} ({int(row.sum()):,})"
            axes.bar(low, row, high - low, bottom, align="edge", color=_COLOURS[call], label=label)
            bottom += row
    axes.set(xscale="log", xlabel="record length, nt", ylabel="records")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    if bottom.any():
        axes.legend(frameon=False, fontsize=9)
    return figure


def _track_figure(tracks: Sequence[Track], threshold: float) -> Any:
    """Return a figure with one panel for each sequence and one bar for each chunk, as high as its virus score."""
    figure, panels = _figure(7.5, 1.1 + 1.5 * len(tracks), len(tracks))
    for axes, track in zip(panels, tracks, strict=True):
        start, end = (track.chunks[name].to_numpy() for name in ("start", "end"))
        calls = [call or CALLS[-1] for call in track.chunks["call"].to_pylist()]
        scores = track.chunks["max_virus_score"].fill_null(0.015).to_numpy()  # a stub for a missing score
        axes.bar(start, scores, end - start, align="edge", color=[_COLOURS[call] for call in calls], alpha=0.85)
        axes.axhline(threshold, color="black", linestyle=":", linewidth=0.8)
        axes.set(ylim=(0, 1.02), xlim=(0, max(track.length, 1)), ylabel="virus score")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        step = f", every {track.step}th chunk" if track.step > 1 else ""
        title = f"{_shown(track.sequence_id)}: {CALL_MEANING[track.call]}, {track.length:,} nt{step}"
        axes.set_title(title, fontsize=9, loc="left", parse_math=False)  # names are untrusted
    panels[-1].set_xlabel("position, nt")
    from matplotlib.patches import Patch

    seen = {call or CALLS[-1] for track in tracks for call in track.chunks["call"].to_pylist()}
    handles = [Patch(color=_COLOURS[call], label=CALL_MEANING[call]) for call in CALLS if call in seen]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    return figure


def _shown(name: str) -> str:
    """Return a name as a title, short and in letters of the font."""
    text = escaped(name).encode("latin-1", "backslashreplace").decode("latin-1") or "(no name)"
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 1]}…"
