"""Report as a single HTML file that needs no network, server or other file."""

import base64
import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from virnucpro_pl.errors import escaped
from virnucpro_pl.files.durable import write_text
from virnucpro_pl.files.output_files import RECORD_TABLE, REPORT, VIRAL_FASTA
from virnucpro_pl.reporting.charts import charts, track_json
from virnucpro_pl.reporting.gathering import CALLS, ReportData, gather
from virnucpro_pl.reporting.wording import (
    CALL_MEANING,
    STATUS_MEANING,
    head_quality,
    repeat_command,
    trained_lengths,
)
from virnucpro_pl.runs.record_types import RunRecord
from virnucpro_pl.sequence.translation import FRAMES

MOST_RECORDS, MOST_TRACKS, MOST_POINTS = 500, 40, 1000
"""Viral sequences in the list, sequences shown along their length, chunks of each: the file stays below 10 MB"""


def write_report(folder: Path, run: RunRecord | None = None) -> Path:
    """Write ``report.html`` into the output folder of a finished run.

    Args:
        folder: output folder.
        run: run record; None: read it.

    Raises:
        UserError: the folder holds no finished run.
    """
    data = gather(folder, MOST_RECORDS, MOST_TRACKS, MOST_POINTS, [], run)
    write_text(folder / REPORT, render(data))
    return folder / REPORT


def render(data: ReportData) -> str:
    """Return the page; the template escapes all text of the input, and a policy allows scripts by their hash only."""
    from plotly.offline import get_plotlyjs  # slow to import

    environment = Environment(
        loader=PackageLoader("virnucpro_pl.reporting", ""),
        autoescape=select_autoescape(["html.j2"], default=True),
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "megabytes": lambda size: f"{size / 2**20:,.0f} MiB"}
    own = files("virnucpro_pl.reporting")
    scripts = [get_plotlyjs(), (own / "report.js").read_text(encoding="utf-8")]
    plotted = {"charts": charts(data), "tracks": [track_json(track) for track in data.tracks], "frames": FRAMES}
    counts = data.run["counts"]
    return environment.get_template("report.html.j2").render(
        run=data.run,
        counts=counts,
        calls=counts["calls"]["records"],
        figures=data.run["figures"],
        scripts=[Markup(script) for script in scripts],
        script_hashes=[_hash(script) for script in scripts],
        style=Markup((own / "report.css").read_text(encoding="utf-8")),
        plotted=_json(plotted),
        uncalled=_uncalled(counts["record_status"], counts["records"]),
        uncalled_chunks=_uncalled(counts["chunk_status"], counts["chunks"]),
        sureness=data.sureness,
        quality=head_quality(data.run),
        trained_lengths=trained_lengths(data.run),
        top=[{**row, "link": fasta_link(row["sequence_id"])} for row in data.top.to_pylist()],
        tracks=data.tracks,
        call_meaning=CALL_MEANING,
        call_names=CALLS,
        command=repeat_command(data.run),
        record_table=RECORD_TABLE,
        viral_fasta=VIRAL_FASTA,
        max_points=MOST_POINTS,
    )


def _visible(value: Any) -> Any:
    """Escape characters that a page cannot show, except in our own markup."""
    return escaped(value) if type(value) is str else value


def fasta_link(sequence_id: str) -> str:
    """Return a link to a sequence in ``viral.fasta``, with a text fragment to which browsers scroll.

    >>> fasta_link("a-b|c")
    'viral.fasta#:~:text=%3Ea%2Db%7Cc'
    """
    return f"{VIRAL_FASTA}#:~:text={quote('>' + sequence_id, safe='').replace('-', '%2D')}"


def _uncalled(statuses: dict[str, int], total: int) -> list[dict[str, Any]]:
    """Return the counts of sequences or chunks that are not called, by status."""
    return [
        {"status": status, "count": count, "share": count / total, "meaning": STATUS_MEANING[status]}
        for status, count in statuses.items()
        if status != "called" and count
    ]


def _json(content: Any) -> Markup:
    """Return JSON that cannot close its script element."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _percent(share: float) -> str:
    """Format a share; only 0 and 1 appear as 0 % and 100 %.

    >>> _percent(0.0001), _percent(0.99999), _percent(0.5), _percent(0)
    ('<0.1 %', '>99.9 %', '50.0 %', '0 %')
    """
    if 0 < share < 0.001:
        return "<0.1 %"
    if 0.999 < share < 1:
        return ">99.9 %"
    return "0 %" if share == 0 else "100 %" if share == 1 else f"{share:.1%}".replace("%", " %")
