"""What input made to harm costs: time, CPU time, peak memory and outcome of bombs, endless lines and absurd counts.

Each case is written to a temporary folder, compressed where it is a bomb, and goes through ``prepare_store`` in a fresh
process; with ``--predict`` the cases that are accepted go through the whole of ``predict`` with the demo model as well.
Needs some 12 GB of disk at full size, and the zstd program. Run from the checkout::

    python benchmarks/hostile_input.py [--scale 1.0] [--only WORD] [--predict]
"""

import argparse
import gzip
import json
import lzma
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, NamedTuple

BEGIN = time.perf_counter()
MIB = 1 << 20
COSTS = ("seconds", "CPU s", "peak MB")
BAM_START = b"BAM\1"


class Case(NamedTuple):
    """One file made to harm."""

    content: Callable[[float], Iterator[bytes]]
    """Yields it, given the scale."""
    packing: str
    """``none``, ``gzip``, ``xz``, or ``zstd`` with its options."""
    outcome: str
    """``refused``, or ``read``."""


def repeated(before: bytes, unit: bytes, total_bytes: int, after: bytes = b"") -> Callable[[float], Iterator[bytes]]:
    """``before``, then ``unit`` over and over up to so many bytes at scale 1, then ``after``."""

    def content(scale: float) -> Iterator[bytes]:
        block = unit * (MIB // len(unit))
        yield before
        yield from (block for _ in range(int(scale * total_bytes / len(block)) + 1))
        yield after

    return content


def one_gb_record(scale: float) -> Iterator[bytes]:
    """Yield a record of the largest size accepted, 2**30 letters at scale 1, on one line and without any ORF."""
    yield b">one\n"
    yield from (b"N" * MIB for _ in range(int(1024 * scale)))


EMPTY_SAM_READ = b"r\t4\t*\t0\t0\t*\t*\t0\t0\tACGT\t*\n"
CASES = {
    "gzip bomb, one record": Case(repeated(b">a\n", b"A", 4096 * MIB), "gzip", "refused"),
    "zstd bomb, one record": Case(repeated(b">a\n", b"A", 10240 * MIB), "zstd", "refused"),
    "zstd bomb, one record of many lines": Case(repeated(b">a\n", b"ACGT\n", 10240 * MIB), "zstd", "refused"),
    "xz that asks for 1 GiB": Case(repeated(b">a\n", b"ACGT\n", 64 * MIB), "xz", "refused"),
    "zstd that asks for 2 GiB": Case(repeated(b">a\n", b"ACGT\n", 64 * MIB), "zstd --long=31", "refused"),
    "FASTA, endless header": Case(repeated(b">a\nAC\n>", b"x", 10240 * MIB), "zstd", "refused"),
    "FASTA, endless comment": Case(repeated(b"#", b"#", 10240 * MIB), "zstd", "read"),
    "FASTA, endless comments": Case(repeated(b"", b"#\n", 10240 * MIB), "zstd", "read"),
    "FASTA, endless blank lines": Case(repeated(b"", b"\n", 10240 * MIB), "zstd", "read"),
    "FASTA, 10 million empty records": Case(repeated(b"", b">\n", 20 * MIB), "none", "read"),
    "FASTA, largest record": Case(one_gb_record, "none", "read"),
    "FASTQ, endless letters": Case(repeated(b"@a\n", b"A", 10240 * MIB), "zstd", "refused"),
    "FASTQ, endless header": Case(repeated(b"@a", b"A", 10240 * MIB), "zstd", "refused"),
    "FASTQ, 10 million empty records": Case(repeated(b"", b"@\n\n+\n\n", 60 * MIB), "none", "read"),
    "SAM, endless header": Case(repeated(b"", b"@CO\tx\n", 10240 * MIB, EMPTY_SAM_READ), "zstd", "read"),
    "SAM, endless line": Case(repeated(EMPTY_SAM_READ + b"r", b"r", 10240 * MIB), "zstd", "refused"),
    "BAM, header of 2 GiB": Case(repeated(BAM_START + b"\xff\xff\xff\x7f", b"x", 2048 * MIB), "gzip", "refused"),
    "BAM, 2**31 references": Case(repeated(BAM_START + bytes(4) + b"\xff\xff\xff\x7f", b"x", MIB), "gzip", "refused"),
    "BAM, record of 2 GiB": Case(repeated(BAM_START + bytes(8) + b"\xff\xff\xff\x7f", b"x", MIB), "gzip", "refused"),
}


def write(path: Path, case: Case, scale: float) -> None:
    """Write the file of a case."""
    if case.packing.startswith("zstd"):
        with path.open("wb") as packed:
            process = subprocess.Popen([*case.packing.split(), "-q", "-c"], stdin=subprocess.PIPE, stdout=packed)
            assert process.stdin
            process.stdin.writelines(case.content(scale))
            process.stdin.close()
            assert process.wait() == 0
        return
    with ExitStack() as stack:
        stream: IO[bytes] = stack.enter_context(path.open("wb"))
        if case.packing == "gzip":
            stream = stack.enter_context(gzip.GzipFile("", "wb", 1, stream))
        elif case.packing == "xz":
            filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]
            stream = stack.enter_context(lzma.LZMAFile(stream, "wb", filters=filters))
        stream.writelines(case.content(scale))


def build(path: Path, folder: Path) -> None:
    """Build the store of a file, and tell outcome, seconds and peak memory."""
    from virnucpro_pl.errors import UserError
    from virnucpro_pl.failures import one_line
    from virnucpro_pl.host.stage_clock import StageClock
    from virnucpro_pl.sequence.store import StoreSettings, prepare_store

    try:
        store = prepare_store([str(path)], folder, StoreSettings(300), StageClock())
        told = {
            "outcome": "read",
            "detail": f"{json.loads((store / 'manifest.json').read_text())['records']:,} records",
        }
    except UserError as error:
        told = {"outcome": "refused", "detail": one_line(error).removeprefix(f"{path}: ")}
    print(json.dumps({**told, **spent()}))


def spent() -> dict[str, float]:
    """Seconds and CPU seconds of this process since its start, and its peak resident memory in MB (Linux)."""
    peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split(None, 1)[0]) / 1024
    return {"seconds": time.perf_counter() - BEGIN, "CPU s": time.process_time(), "peak MB": peak}


def predict(path: Path, folder: Path) -> None:
    """Run the whole of ``predict`` on a file."""
    from virnucpro_pl import __main__ as program

    sys.argv = ["virnucpro-pl", "predict", f"input={path}", f"output={folder / 'out'}", "trainer.accelerator=cpu"]
    program.main()
    records = json.loads((folder / "out" / "run.json").read_text())["counts"]["records"]
    told = {"outcome": "predicted", "detail": f"{records:,} records"}
    print(json.dumps({**told, **spent()}))


def measure(program: str, path: Path) -> dict[str, str | float]:
    """Run ``build`` or ``predict`` in a fresh process."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        command = [sys.executable, __file__, "--measure", program, str(path), folder]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            return {"outcome": f"exit {result.returncode}", "detail": result.stderr[-300:], **dict.fromkeys(COSTS, 0.0)}
        return json.loads(result.stdout.splitlines()[-1])


def run_cases(scale: float, names: list[str], with_predict: bool = False) -> Iterator[tuple[str, Case, dict]]:
    """Measure the cases of these names."""
    for name in names:
        case = CASES[name]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "input"
            write(path, case, scale)
            yield name, case, measure("build", path)
            if with_predict and case.outcome == "read":
                yield name, case, measure("predict", path)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--predict", action="store_true")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        program, path, folder = options.measure
        {"build": build, "predict": predict}[program](Path(path), Path(folder))
        return
    names = [name for name in CASES if options.only in name]
    print(f"{'case':<38} {'outcome':<10} {'seconds':>8} {'CPU s':>8} {'peak MB':>8}  detail")
    for name, case, told in run_cases(options.scale, names, options.predict):
        mark = "" if told["outcome"] in (case.outcome, "predicted") else "  NOT AS EXPECTED"
        costs = f"{told['seconds']:>8.1f} {told['CPU s']:>8.1f} {told['peak MB']:>8.0f}"
        print(f"{name:<38} {told['outcome']:<10} {costs}  {told['detail']}{mark}", flush=True)


if __name__ == "__main__":
    main()
