"""Differential fuzzing of the readers, by seeded random inputs, in several processes for some time.

    python tests/fuzz/run.py [--seconds 60] [--processes 2] [--targets fasta fastq containers] [--seed 0]

Every input is read by the program and by plain references (``references.py``), and where it applies by Biopython.
Prints a line per kind of finding, and at the end one line of JSON: executions of each target, how many inputs were read
and not refused, and findings. An input that failed is shortened and written to ``--findings``, with what happened
beside it; ``--again FILE`` runs it once more. Exit status: 0 without findings, 1 with any.
"""

import argparse
import json
import logging
import multiprocessing
import random
import re
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from targets import BLOCK_BYTES, TARGETS, Reading, random_reading

HANGS_AFTER = 60  # seconds that one input may take
MOST_FINDINGS = 20  # of one process, which then stops
REPORT_SECONDS = 5.0


def outcome(target: str, data: bytes, how: Reading) -> tuple[bool, str]:
    """Return whether an input was read, and what went wrong, nothing if all is well."""
    signal.alarm(HANGS_AFTER)
    try:
        return TARGETS[target].check(data, how), ""
    except Exception:  # noqa: BLE001 - whatever is raised is what is looked for
        return False, traceback.format_exc()
    finally:
        signal.alarm(0)


def kind_of_failure(data: bytes, target: str, how: Reading) -> str:
    """Return what inputs that fail for one reason share."""
    told = re.sub(r"\[.*?\]", "[]", outcome(target, data, how)[1].strip().rpartition("\n")[2])
    return f"{target}: {told[:50]}" if told else ""


def shortened(data: bytes, fails: Callable[[bytes], bool], seconds: float = 10.0) -> bytes:
    """Return the input without pieces that it fails without, too."""
    deadline = time.monotonic() + seconds
    size = len(data) // 2
    while size and time.monotonic() < deadline:
        start = 0
        while start < len(data) and time.monotonic() < deadline:
            shorter = data[:start] + data[start + size :]
            if fails(shorter):
                data = shorter
            else:
                start += size
        size //= 2
    return data


def write_finding(folder: Path, target: str, data: bytes, how: Reading, told: str) -> Path:
    """Write an input that failed, and what happened."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{target}-{how.block_bytes}-{how.drip}-{abs(hash(data)):x}.bin"
    path.write_bytes(data)
    path.with_suffix(".txt").write_text(f"{data[:2000]!r}\n{how}\n{told}", encoding="utf-8", errors="backslashreplace")
    return path


def work(number: int, options: argparse.Namespace, current: Path, parent: Connection) -> None:
    """Fuzz in one process, and report numbers now and then."""
    signal.signal(signal.SIGALRM, _hangs)
    logging.disable()  # warnings of the program, of which there is one for each file without end mark
    executions: Counter[str] = Counter()
    was_read: Counter[str] = Counter()
    findings = run = 0
    known: set[str] = set()
    began = told_at = time.monotonic()
    with current.open("wb", buffering=0) as stream:
        while time.monotonic() - began < options.seconds and findings < MOST_FINDINGS:
            target = options.targets[run % len(options.targets)]
            generator = random.Random(f"{options.seed} {number} {run}")
            data = TARGETS[target].make(generator)
            how = random_reading(generator, data)
            stream.seek(0)
            stream.write(len(data).to_bytes(8, "little") + data)  # for the case that the process dies of it
            read, told = outcome(target, data, how)
            executions[target] += 1
            was_read[target] += read
            run += 1
            last_line = told.strip().rpartition("\n")[2]
            if told and (kind := kind_of_failure(data, target, how)) not in known:
                known.add(kind)
                findings += 1
                small = shortened(
                    data, lambda one, same=(target, how, kind): kind_of_failure(one, *same[:2]) == same[2]
                )
                path = write_finding(options.findings, target, small, how, outcome(target, small, how)[1])
                print(f"{path}: {last_line[:200]}", flush=True)
            if time.monotonic() - told_at > REPORT_SECONDS:
                told_at = time.monotonic()
                parent.send((executions, was_read, findings))
    parent.send((executions, was_read, findings))


def _hangs(*_: object) -> None:
    raise TimeoutError(f"an input took more than {HANGS_AFTER} s")


def fuzz(options: argparse.Namespace) -> int:
    """Run all processes, print their sum, and return the number of findings."""
    context = multiprocessing.get_context("spawn")
    options.findings.mkdir(parents=True, exist_ok=True)
    workers = []
    for number in range(options.processes):
        current = options.findings / f"process-{number}.current"
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(number, options, current, sender))
        process.start()
        sender.close()
        workers.append((process, receiver, current))
    executions: Counter[str] = Counter()
    was_read: Counter[str] = Counter()
    findings = 0
    began = time.monotonic()
    for process, receiver, current in workers:
        last: tuple[Counter[str], Counter[str], int] = (Counter(), Counter(), 0)
        try:
            while True:
                last = receiver.recv()
        except EOFError:
            process.join()
        executions += last[0]
        was_read += last[1]
        findings += last[2]
        if process.exitcode:
            findings += 1
            content = current.read_bytes()
            crash = current.with_suffix(".crash.bin")
            crash.write_bytes(content[8 : 8 + int.from_bytes(content[:8], "little")])
            print(f"{crash}: the process died with status {process.exitcode}", flush=True)
        current.unlink(missing_ok=True)
    facts = {
        "seconds": round(time.monotonic() - began, 1),
        "processes": options.processes,
        "seed": options.seed,
        "python": sys.version.split()[0],
        "executions": dict(executions),
        "read": dict(was_read),
        "findings": findings,
    }
    print(json.dumps(facts), flush=True)
    return findings


def again(path: Path) -> int:
    """Run an input that failed before in every way of reading."""
    signal.signal(signal.SIGALRM, _hangs)
    target = path.name.split("-")[0]
    for how in (Reading(size, drip) for size in BLOCK_BYTES for drip in (0, 1, 5, 4096)):
        if told := outcome(target, path.read_bytes(), how)[1]:
            print(f"{how}\n{told}")
            return 1
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--targets", nargs="+", choices=[*TARGETS], default=[*TARGETS])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--findings", type=Path, default=Path("build/fuzz"), help="folder for inputs that failed")
    parser.add_argument("--again", type=Path, help="an input that failed before")
    options = parser.parse_args()
    sys.exit(1 if (again(options.again) if options.again else fuzz(options)) else 0)


if __name__ == "__main__":
    main()
