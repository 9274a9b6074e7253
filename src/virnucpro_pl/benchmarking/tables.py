"""The figures as tables for the terminal and the log."""

import io
from collections.abc import Callable, Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from virnucpro_pl.benchmarking.measurement import PRECISION, Measurement, share_of_slower_encoder, times_as_fast
from virnucpro_pl.benchmarking.precisions import PRECISIONS, Precision

_WIDTH = 300  # more than any table takes: the log is not cut to the terminal
_Column = tuple[str, Callable[[Measurement], str]]


def speed_table(measurements: Sequence[Measurement]) -> str:
    """Every measured speed, part by part."""
    rows = [found for found in measurements if found.part != PRECISION]
    columns: list[_Column] = [
        ("part", lambda m: m.part),
        ("encoder", lambda m: m.encoder),
        ("engine", lambda m: m.engine),
        ("precision", lambda m: m.precision),
        ("reads", lambda m: m.mix),
        ("sequences", lambda m: _number(m.sequences)),
        ("tokens/s", lambda m: _number(m.tokens_per_second)),
        ("TFLOP/s", lambda m: f"{m.tflops:.4g}"),
        ("of matrix rate", lambda m: _percent(m.share_of_matrix_rate)),
        ("packing", lambda m: _percent(m.packing_efficiency)),
        ("GPU", lambda m: "" if m.gpu_utilisation_percent is None else f"{m.gpu_utilisation_percent:.0f} %"),
        ("waiting", lambda m: _percent(m.wait_share)),
        ("ours is", lambda m: _times(times_as_fast(rows, m))),
        ("of slower encoder", lambda m: _percent(share_of_slower_encoder(rows, m))),
    ]
    return _render("Speed", columns, rows, left=5)


def precision_table(measurements: Sequence[Measurement], unavailable: Iterable[Precision]) -> str:
    """Speed of every precision beside its effect, and why the others have none."""
    rows = [found for found in measurements if found.part == PRECISION]
    columns: list[_Column] = [
        ("precision", lambda m: m.precision),
        ("encoder", lambda m: m.encoder),
        ("tokens/s", lambda m: _number(m.tokens_per_second)),
        ("cosine min", lambda m: f"{m.cosine_min:.7f}"),
        ("cosine mean", lambda m: f"{m.cosine_mean:.7f}"),
        ("SQNR", lambda m: "" if m.sqnr_db is None else f"{m.sqnr_db:.1f} dB"),
        ("same calls", lambda m: _percent(m.call_agreement)),
    ]
    measured = {found.precision for found in rows}
    absent = set(unavailable)
    notes = [
        (precision.name, "not on this device" if precision in absent else "not asked for")
        for precision in PRECISIONS
        if precision.name not in measured
    ]
    sequences = rows[0].sequences if rows else 0
    title = f"Precision against exact float32, {sequences:,} ORFs, weights and head random"
    return _render(title, columns, rows, 2, notes)


def _render(
    title: str, columns: list[_Column], rows: Iterable[Measurement], left: int, notes: Iterable[tuple[str, ...]] = ()
) -> str:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, (heading, _) in enumerate(columns):
        table.add_column(heading, justify="left" if number < left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(text(row) for _, text in columns))
    for note in notes:
        table.add_row(*note)
    stream = io.StringIO()
    Console(file=stream, width=_WIDTH).print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.1f} x"


def progress_line(found: Measurement) -> str:
    """One measurement in a line."""
    what = " ".join(filter(None, (found.part, found.encoder, found.engine, found.precision, found.mix)))
    return f"{what}: {found.tokens_per_second:,.0f} tokens/s, {found.tflops:.4g} TFLOP/s in {found.seconds:.3g} s"
