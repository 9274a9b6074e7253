"""What ``chaos.py`` does everything with: the prediction, its undisturbed files, and the notes of a case."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from virnucpro_pl.files.output_files import RESULT_FILES

LIMIT = 600.0
"""Seconds after which a run counts as hung"""
_SITE = Path(__file__).with_name("chaos_site")


@dataclass
class Case:
    """One prediction that is disturbed at least once."""

    number: int
    round: int
    """Number of the case among those of its way"""
    way: str
    random: random.Random
    parts: int = 0
    """Score shards that were on the disk when it was resumed"""
    events: list[str] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)

    def expect(self, holds: bool, what: str) -> None:
        """Note a mistake if it does not hold."""
        if not holds:
            self.mistakes.append(" ".join(what.split()))


@dataclass
class Bench:
    """Where everything is, and what an undisturbed run leaves."""

    folder: Path
    reads: Path
    accelerator: str
    reference: dict[str, bytes] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    """Of an undisturbed run, by number of processes"""
    calls: dict[str, int] = field(default_factory=dict)
    """System calls of an undisturbed run, by kind"""

    def start(
        self, output: Path, devices: int, *words: str, reads: Path | None = None, **environment: str
    ) -> subprocess.Popen[str]:
        """Start the prediction; always the same command but for the number of processes."""
        command = [sys.executable, "-m", "virnucpro_pl", "predict", f"input={reads or self.reads}", f"output={output}"]
        command += ["data.token_budget=512", "callbacks.part_writer.max_orfs=30"]
        command += [f"trainer.accelerator={self.accelerator}", f"trainer.devices={devices}", *words]
        paths = os.pathsep.join([str(_SITE), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, **environment}
        return subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def undisturbed(self, devices: int) -> None:
        """Run it to the end, for its files, its time and its system calls."""
        output, counts = self.folder / f"undisturbed-{devices}", self.folder / f"calls-{devices}.json"
        began = time.monotonic()
        code, errors = wait(self.start(output, devices, CHAOS_BELOW=str(output), CHAOS_COUNTS=str(counts)))
        if code:
            sys.exit(f"the undisturbed run failed:\n{errors}")
        self.seconds[devices] = time.monotonic() - began
        found = files_of(output)
        if self.reference and found != self.reference:
            sys.exit("two processes write other files than one; nothing to compare with")
        self.reference = found
        if devices == 1:
            self.calls = json.loads(counts.read_text(encoding="utf-8"))

    def differing(self, output: Path) -> list[str]:
        """Return the names of result files that are not those of the undisturbed run."""
        found = files_of(output)
        return [name for name in RESULT_FILES if found.get(name) != self.reference[name]]


def files_of(output: Path) -> dict[str, bytes]:
    return {name: (output / name).read_bytes() for name in RESULT_FILES if (output / name).exists()}


def parts_in(output: Path) -> int:
    return len([*output.glob(".work/parts/*/part-*.parquet")])


def wait(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Return exit status and standard error of a run that may hang."""
    try:
        _, errors = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        _, errors = process.communicate()
        return -999, errors
    return process.returncode, errors


def verify(output: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "virnucpro_pl", "verify", f"output={output}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def wait_for_parts(process: subprocess.Popen[str], output: Path) -> None:
    """Return when the first scores are on the disk, or the run has ended."""
    while process.poll() is None and not parts_in(output):
        time.sleep(0.02)
