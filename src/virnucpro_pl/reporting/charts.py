"""Charts of a report as Plotly JSON; the page sets the colours of its light or dark theme."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from virnucpro_pl.reporting.gathering import CALLS, LENGTH_EDGES, SCORE_BINS, ReportData, Track
from virnucpro_pl.reporting.wording import CALL_MEANING
from virnucpro_pl.runs.record_types import StageMetrics
from virnucpro_pl.sequence.translation import FRAMES

Chart = dict[str, Any]


def charts(data: ReportData) -> dict[str, Chart]:
    """Return data and layout of each chart, by the id of its element in the page.

    They contain no text of the input, in which Plotly would interpret markup.
    """
    threshold = data.run["identity"]["results.threshold"]
    return {
        "record-scores": _score_chart(data.record_scores, threshold, "records"),
        "chunk-scores": _score_chart(data.chunk_scores, threshold, "chunks"),
        "lengths": _length_chart(data.lengths),
        "stages": _stage_chart(data.run["figures"]["stages"]),
    }


def _score_chart(counts: NDArray[np.int64], threshold: float, unit: str) -> Chart:
    middles = ((np.arange(SCORE_BINS) + 0.5) / SCORE_BINS).tolist()
    bars = [
        {
            "type": "bar",
            "name": CALL_MEANING[call],
            "meta": call,
            "x": middles,
            "y": row.tolist(),
            "width": 1 / SCORE_BINS,
            "hovertemplate": f"%{{y:,}} {unit} with a score near %{{x:.2f}}<extra>{CALL_MEANING[call]}</extra>",
        }
        for call, row in zip(CALLS[:-1], counts, strict=False)
        if row.any()
    ]
    layout = {
        "barmode": "stack",
        "xaxis": {"title": {"text": "highest virus score"}, "range": [0, 1]},
        "yaxis": {"title": {"text": unit}, "rangemode": "tozero", "tickformat": ",d"},
        "shapes": [
            {"type": "line", "x0": threshold, "x1": threshold, "y0": 0, "y1": 1, "yref": "paper", "line": _THRESHOLD}
        ],
    }
    return {"data": bars, "layout": layout}


_THRESHOLD = {"dash": "dot", "width": 1.5}


def _length_chart(counts: NDArray[np.int64]) -> Chart:
    """Return the chart of sequences by length and call, with the share of viral ones."""
    filled = np.flatnonzero(counts.sum(axis=0))
    first, last = (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, 0)
    shown = counts[:, first:last]
    labels = [
        f"{low:,}" if high == low + 1 else f"{low:,}–{high - 1:,}"
        for low, high in zip(LENGTH_EDGES[first:last], LENGTH_EDGES[first + 1 : last + 1], strict=True)
    ]
    positions = list(range(len(labels)))
    bars = [
        {
            "type": "bar",
            "name": CALL_MEANING[call],
            "meta": call,
            "x": positions,
            "y": row.tolist(),
            "customdata": labels,
            "hovertemplate": f"%{{y:,}} records of %{{customdata}} nt<extra>{CALL_MEANING[call]}</extra>",
        }
        for call, row in zip(CALLS, shown, strict=True)
        if row.any()
    ]
    called = shown[:-1].sum(axis=0)
    share = [int(viral) / int(total) if total else None for viral, total in zip(shown[0], called, strict=True)]
    bars.append(
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "viral share of the called",
            "meta": "share",
            "x": positions,
            "y": share,
            "yaxis": "y2",
            "customdata": [[label, int(total)] for label, total in zip(labels, called, strict=True)],
            "hovertemplate": "%{y:.1%} of %{customdata[1]:,} called records of %{customdata[0]} nt<extra></extra>",
        }
    )
    step = max(1, len(labels) // 8)
    layout = {
        "barmode": "stack",
        "xaxis": {
            "title": {"text": "record length, nt"},
            "tickvals": positions[::step],
            "ticktext": labels[::step],
        },
        "yaxis": {"title": {"text": "records"}, "rangemode": "tozero", "tickformat": ",d"},
        "yaxis2": {
            "title": {"text": "viral share"}, "overlaying": "y", "side": "right", "range": [0, 1.02],
            "dtick": 0.25, "tickformat": ".0%", "showgrid": False,
        },
    }  # fmt: skip
    return {"data": bars, "layout": layout}


def _stage_chart(stages: dict[str, StageMetrics]) -> Chart:
    names = list(stages)[::-1]
    seconds = [stages[name]["seconds"] for name in names]
    text = [f"{stages[name]['seconds']:,.2f} s, {stages[name]['share']:.1%}" for name in names]
    bar = {
        "type": "bar",
        "orientation": "h",
        "meta": "stage",
        "x": seconds,
        "y": names,
        "text": text,
        "textposition": "auto",
        "hovertemplate": "%{y}: %{text}<extra></extra>",
        "showlegend": False,
    }
    layout = {"xaxis": {"title": {"text": "seconds"}, "rangemode": "tozero"}, "yaxis": {"automargin": True}}
    return {"data": [bar], "layout": layout}


def track_json(track: Track) -> dict[str, Any]:
    """Return the chunks of one sequence for the page: rounded, by column, None for a frame with a stop codon."""
    columns = track.chunks
    frames = [[_rounded(score) for score in columns[f"virus_score_{frame}"].to_pylist()] for frame in FRAMES]
    return {
        "start": columns["start"].to_pylist(),
        "end": columns["end"].to_pylist(),
        "score": [_rounded(score) for score in columns["max_virus_score"].to_pylist()],
        "call": [CALLS.index(call or CALLS[-1]) for call in columns["call"].to_pylist()],
        "frames": frames,
    }


def _rounded(score: float | None) -> float | None:
    return None if score is None else round(score, 4)
