"""Kill running predictions at random moments, resume them, and compare their files with those of undisturbed runs.

    python benchmarks/chaos.py --kills 50 --jobs 2

Ways to die: SIGKILL and SIGTERM at any moment, of one process, of a run of two, of one rank of two; SIGKILL right
before or after a flush or a rename; a full disk (a small tmpfs, which needs root). What was killed is started again by
the same command, with one or two processes, and may be killed again. Prints one line per case and ends with status 1
unless all result files equal those of the undisturbed run byte for byte and `verify` finds them well.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from virnucpro_pl.benchmarking.synthetic_reads import write_reads
from virnucpro_pl.output_files import RESULT_FILES

READS, LENGTH = 3000, 300
WAYS = ("SIGKILL", "SIGTERM", "SIGKILL of two", "SIGTERM of two", "rank lost", "in a write", "in a write", "disk full")
GRACE = 30.0  # seconds a cluster waits between SIGTERM and SIGKILL
LIMIT = 600.0  # seconds after which a run counts as hung

# Put in front of every process by Python itself: dies right before or after one call of os.fsync or os.replace.
SITE = """
import os, signal
kind, when, left = (os.environ.get("CHAOS_AT") or "none:before:0").split(":")
left = int(left)
def hooked(function):
    def call(*arguments, **options):
        global left
        left -= 1
        if left == 0 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **options)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call
if kind != "none":
    setattr(os, kind, hooked(getattr(os, kind)))
"""


@dataclass
class Case:
    """One prediction, killed at least once."""

    number: int
    way: str
    random: random.Random
    parts: int = 0
    told: list[str] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)

    def expect(self, holds: bool, what: str) -> None:
        """Note a mistake if it does not hold."""
        if not holds:
            self.mistakes.append(what)


@dataclass
class Bench:
    """Where everything is, and how long an undisturbed run takes."""

    folder: Path
    reads: Path
    accelerator: str
    reference: dict[str, bytes] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)

    def start(self, output: Path, devices: int, **environment: str) -> subprocess.Popen[str]:
        """Start the prediction; always the same command but for the number of processes."""
        command = [sys.executable, "-m", "virnucpro_pl", "predict", f"input={self.reads}", f"output={output}"]
        command += ["data.token_budget=512", "callbacks.part_writer.max_orfs=30"]
        command += [f"trainer.accelerator={self.accelerator}", f"trainer.devices={devices}"]
        paths = os.pathsep.join([str(self.folder / "site"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, **environment}
        return subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def undisturbed(self, devices: int) -> None:
        """Run it to the end, for its files and its time."""
        output = self.folder / f"undisturbed-{devices}"
        began = time.monotonic()
        code, errors = wait(self.start(output, devices))
        if code:
            sys.exit(f"the undisturbed run failed:\n{errors}")
        self.seconds[devices] = time.monotonic() - began
        found = files_of(output)
        if self.reference and found != self.reference:
            sys.exit("two processes write other files than one; nothing to compare with")
        self.reference = found


def files_of(output: Path) -> dict[str, bytes]:
    return {name: (output / name).read_bytes() for name in RESULT_FILES if (output / name).exists()}


def wait(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Return exit status and what was said, of a run that may hang."""
    try:
        _, errors = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        _, errors = process.communicate()
        return -999, errors
    return process.returncode, errors


def parts_in(output: Path) -> int:
    return len([*output.glob(".work/parts/*/part-*.parquet")])


def ranks_of(pid: int) -> list[int]:
    """Processes that a run has started for its other devices; a GPU run has further children."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in children if b"_ddp_process_" in Path(f"/proc/{child}/cmdline").read_bytes()]
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return []


def kill_once(bench: Bench, case: Case, output: Path) -> None:
    """Start a run, and end it in the case's way; it may be faster."""
    devices = 2 if "two" in case.way or case.way == "rank lost" or case.random.random() < 0.3 else 1
    if case.way == "in a write":
        at = f"{case.random.choice(['fsync', 'replace'])}:{case.random.choice(['before', 'after'])}"
        at += f":{case.random.randint(1, 250)}"
        code, _ = wait(bench.start(output, 1, CHAOS_AT=at))
        case.told.append(f"{at} -> {code}")
        case.expect(code in (0, -signal.SIGKILL), f"status {code} where it should have killed itself")
        return
    process = bench.start(output, devices)
    began = time.monotonic()
    if case.number % 2:  # any moment; starting takes most of so short a run
        time.sleep(case.random.uniform(0.05, 1.0) * bench.seconds[devices])
    else:  # while it predicts, or a little later
        while process.poll() is None and not parts_in(output):
            time.sleep(0.02)
        time.sleep(case.random.uniform(0.0, 0.25) * bench.seconds[devices])
    moment = time.monotonic() - began
    victims = [process.pid]
    if case.way == "rank lost":
        deadline = time.monotonic() + bench.seconds[devices]
        while not (ranks := ranks_of(process.pid)) and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        victims = ranks[:1]
    number = signal.SIGTERM if case.way.startswith("SIGTERM") else signal.SIGKILL
    for victim in victims:
        with suppress(ProcessLookupError):
            os.kill(victim, number)
    began = time.monotonic()
    code, errors = wait(process)
    took = time.monotonic() - began
    case.told.append(f"{devices} process(es) at {moment:.1f} s -> {code} after {took:.1f} s")
    if number == signal.SIGTERM:
        # Before the program has begun, Python itself dies of the signal; at its end there is nothing left to stop.
        case.expect(code in (0, 143, -signal.SIGTERM), f"status {code} after SIGTERM: {errors[-300:]}")
        case.expect(took < GRACE, f"took {took:.0f} s to end after SIGTERM")
    elif case.way == "rank lost" and victims:
        case.expect(code in (0, 1), f"status {code} after a rank was lost: {errors[-3000:]}")
        case.expect(took < GRACE, f"took {took:.0f} s to notice")
        case.expect("Traceback" not in errors, f"traceback: {errors[-300:]}")


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def can_mount(folder: Path) -> bool:
    try:
        with small_disk(folder, "1m"):
            return True
    except subprocess.CalledProcessError:
        return False


def fill_up(bench: Bench, case: Case, disk: Path) -> None:
    """Run on a disk that gets full at some point."""
    kib = case.random.randint(16, 1200)
    subprocess.run(["mount", "-o", f"remount,size={kib}k", str(disk)], check=True)
    code, errors = wait(bench.start(disk / "out", case.random.choice([1, 2])))
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    said = [line for line in errors.splitlines() if "Error: " in line or line.startswith("Cannot")]
    case.told.append(f"disk of {kib} KiB -> {code}: {said[-1][-70:] if said else '-'}")
    case.expect(code in (0, 1), f"status {code} on a full disk")
    case.expect("Traceback" not in errors, f"traceback: {errors[-600:]}")
    case.expect(code == 0 or "no space left" in errors.lower(), f"no word of the disk: {errors[-300:]}")


def run_case(bench: Bench, case: Case) -> Case:
    with ExitStack() as stack:
        output = bench.folder / f"case-{case.number}"
        if case.way == "disk full":
            stack.enter_context(small_disk(output, "64m"))
            fill_up(bench, case, output)
            output = output / "out"
        else:
            for _ in range(1 if case.random.random() < 0.7 else 2):
                kill_once(bench, case, output)
        case.parts = parts_in(output)
        devices = case.random.choice([1, 2])
        code, errors = wait(bench.start(output, devices))
        case.expect(code == 0, f"resuming ended with {code}: {errors[-600:]}")
        found = files_of(output)
        different = [name for name in RESULT_FILES if found.get(name) != bench.reference[name]]
        case.expect(not different, f"differ: {different}")
        case.expect(not (output / ".work").exists(), "the work folder is still there")
        command = [sys.executable, "-m", "virnucpro_pl", "verify", f"output={output}"]
        verified = subprocess.run(command, capture_output=True, text=True, check=False)
        case.expect(verified.returncode == 0, f"verify: {verified.stderr[-300:]}")
        record = (output / "run.json").read_text(encoding="utf-8") if (output / "run.json").exists() else ""
        resumed = re.search(r'"resumed": (\d+)', record)
        case.told.append(
            f"{case.parts} parts; resumed on {devices}, {resumed[1] if resumed else '?'} time(s) on record"
        )
    if not case.mistakes:
        shutil.rmtree(bench.folder / f"case-{case.number}", ignore_errors=True)
    return case


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="how many predictions are killed")
    parser.add_argument("--jobs", type=int, default=1, help="how many at the same time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--accelerator", choices=["cpu", "gpu"], default="cpu", help="gpu needs two of them")
    parser.add_argument("--ways", nargs="+", choices=sorted(set(WAYS)), default=list(WAYS))
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    ways = [way for way in options.ways if way != "disk full" or can_mount(folder / "disk")]
    if len(ways) < len(options.ways):
        print("disk full: left out, a small disk cannot be mounted here")
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(SITE, encoding="utf-8")
    bench = Bench(folder, write_reads(READS, LENGTH, options.seed, folder).path, options.accelerator)
    for devices in (1, 2):
        bench.undisturbed(devices)
    print(f"undisturbed: {bench.seconds[1]:.1f} s with one process, {bench.seconds[2]:.1f} s with two", flush=True)

    cases = [
        Case(number, ways[number % len(ways)], random.Random(f"{options.seed} {number}"))
        for number in range(options.kills)
    ]
    with ThreadPoolExecutor(options.jobs) as pool:
        for case in pool.map(lambda case: run_case(bench, case), cases):
            verdict = "; ".join(case.mistakes) or "equal"
            print(f"{case.number + 1:3} {case.way:15} {verdict:6} | {'; '.join(case.told)}", flush=True)
    equal = sum(not case.mistakes for case in cases)
    print(f"{equal} of {len(cases)} resumed to the files of the undisturbed run", end="; ")
    print(f"{sum(case.parts > 0 for case in cases)} of them had scores on the disk when they were killed")
    if equal < len(cases):
        sys.exit(f"kept for a look: {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
