"""Ways to disturb a prediction, for ``chaos.py``: each is a function of the bench, the case and its output folder."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from chaos_bench import Bench, Case, parts_in, wait, wait_for_parts

GRACE = 30.0  # seconds a cluster waits between SIGTERM and SIGKILL


def one_line(errors: str) -> bool:
    """Return whether a refusal is one line that begins with Error, without a traceback."""
    return "Traceback" not in errors and sum(line.startswith("Error: ") for line in errors.splitlines()) == 1


# --- kills


def ranks_of(pid: int) -> list[int]:
    """Return the processes that a run has started for its other devices; a GPU run has further children."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
        return [int(child) for child in children if b"_ddp_process_" in Path(f"/proc/{child}/cmdline").read_bytes()]
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return []


def send_signal(bench: Bench, case: Case, output: Path) -> None:
    """Start a run, and send a signal to it or to one of its ranks; it may be faster."""
    for _ in range(1 if case.random.random() < 0.7 else 2):
        _send_signal(bench, case, output)


def _send_signal(bench: Bench, case: Case, output: Path) -> None:
    devices = 2 if "two" in case.way or case.way == "rank lost" or case.random.random() < 0.3 else 1
    process = bench.start(output, devices)
    began = time.monotonic()
    if case.round % 2:  # any moment; starting takes most of so short a run
        time.sleep(case.random.uniform(0.05, 1.0) * bench.seconds[devices])
    else:  # while it predicts, or a little later
        wait_for_parts(process, output)
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
    case.events.append(f"{devices} process(es) at {moment:.1f} s -> {code} after {took:.1f} s")
    if number == signal.SIGTERM:
        # Before the program has begun, Python itself dies of the signal; at its end there is nothing left to stop.
        case.expect(code in (0, 143, -signal.SIGTERM), f"status {code} after SIGTERM: {errors[-300:]}")
        case.expect(took < GRACE, f"took {took:.0f} s to end after SIGTERM")
    elif case.way == "rank lost" and victims:
        case.expect(code in (0, 1), f"status {code} after a rank was lost: {errors[-3000:]}")
        case.expect(took < GRACE, f"took {took:.0f} s to notice")
        case.expect("Traceback" not in errors, f"traceback: {errors[-300:]}")


def kill_at_a_call(bench: Bench, case: Case, output: Path) -> None:
    """Kill the run right before one of its system calls; cases go through all kinds and their whole range."""
    kinds = sorted(kind for kind, count in bench.calls.items() if count)
    kind = kinds[case.round % len(kinds)]
    number = case.random.randint(1, bench.calls[kind])
    code, errors = wait(bench.start(output, 1, CHAOS_BELOW=str(output), CHAOS_AT=f"{kind}:{number}"))
    case.events.append(f"{kind} {number} of {bench.calls[kind]} -> {code}")
    case.expect(code in (0, -signal.SIGKILL), f"status {code} where it should have killed itself: {errors[-300:]}")


# --- disks


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
    except (OSError, subprocess.CalledProcessError):
        return False


def fill_disk(bench: Bench, case: Case, output: Path) -> None:
    """Run on a disk that gets full at some point."""
    disk = output.parent
    kib = case.random.randint(16, 1200)
    subprocess.run(["mount", "-o", f"remount,size={kib}k", str(disk)], check=True)
    code, errors = wait(bench.start(output, case.random.choice([1, 2])))
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    shown = [line for line in errors.splitlines() if "Error: " in line or line.startswith("Cannot")]
    case.events.append(f"disk of {kib} KiB -> {code}: {shown[-1][-70:] if shown else '-'}")
    case.expect(code in (0, 1), f"status {code} on a full disk")
    case.expect("Traceback" not in errors, f"traceback: {errors[-600:]}")
    case.expect(code == 0 or "no space left" in errors.lower(), f"no word of the disk: {errors[-300:]}")


def killed_while_predicting(bench: Bench, case: Case, output: Path) -> None:
    process = bench.start(output, 1)
    wait_for_parts(process, output)
    time.sleep(case.random.uniform(0.0, 0.1) * bench.seconds[1])
    process.kill()
    wait(process)


def damage_a_file(bench: Bench, case: Case, output: Path) -> None:
    """Kill a run and damage a file of its work folder; cases go through all files, of score shards the first.

    What is resumed gives the same files or is refused in one line; it never gives other files with status 0.
    """
    killed_while_predicting(bench, case, output)
    work = sorted(path.relative_to(output) for path in (output / ".work").rglob("*") if path.is_file())
    parts = [path for path in work if path.name.startswith("part-")]
    files = [path for path in work if path not in parts[1:] and (output / path).stat().st_size]
    path = files[case.round % len(files)]
    how = case.random.choice(sorted(DAMAGES))
    (output / path).write_bytes(DAMAGES[how](case, (output / path).read_bytes()))
    code, errors = wait(bench.start(output, 1))
    case.events.append(f"{path.name} {how} -> {code}")
    if code == 0:
        differ = bench.differing(output)
        case.expect(not differ, f"{path} {how}: other files with status 0: {differ}")
    else:
        case.expect(code in (1, 2) and one_line(errors), f"{path} {how}: status {code}: {errors[-600:]}")
        code, errors = wait(bench.start(output, 1, "overwrite=true"))
        case.expect(code == 0, f"{path} {how}: starting over: status {code}: {errors[-600:]}")


def _flipped(case: Case, content: bytes) -> bytes:
    changed = bytearray(content)
    changed[case.random.randrange(len(changed))] ^= 1 << case.random.randrange(8)
    return bytes(changed)


DAMAGES: dict[str, Callable[[Case, bytes], bytes]] = {
    "flipped": _flipped,
    "end zeroed": lambda case, content: content[: -min(16, len(content))] + bytes(min(16, len(content))),
    "cut short": lambda case, content: content[: case.random.randrange(len(content))],
}


# --- inputs


def replace_input(bench: Bench, case: Case, output: Path) -> None:
    """Replace, change or cut the input while it is read or afterwards: the same files, or one line.

    Then it is as before, and is resumed; where the folder holds what was read of another input, it is refused.
    """
    reads = output.with_name(f"{output.name}-reads.fa")
    shutil.copy(bench.reads, reads)
    content = reads.read_bytes()
    how = case.random.choice(("replaced", "changed", "cut short", "appended"))
    process = bench.start(output, 1, reads=reads)
    time.sleep(case.random.uniform(0.2, 0.9) * bench.seconds[1])
    moment = parts_in(output)
    if how == "replaced":
        other = reads.with_suffix(".new")
        other.write_bytes(content[len(content) // 2 :])
        other.replace(reads)
    elif how == "changed":
        with reads.open("r+b") as stream:
            stream.seek(len(content) // 2)
            stream.write(b"ACGTACGT")
    elif how == "cut short":
        os.truncate(reads, len(content) // 2)
    else:
        with reads.open("ab") as stream:
            stream.write(b">more\nACGTACGTACGT\n")
    code, errors = wait(process)
    case.events.append(f"{how}, {moment} parts -> {code}")
    if code == 0:
        was_read = json.loads((output / "run.json").read_text(encoding="utf-8"))["counts"]["inputs"][0]["sha256"]
        if was_read == hashlib.sha256(reads.read_bytes()).hexdigest():
            case.events.append("before it was read")
        else:
            differ = set(bench.differing(output)) - {"sequences.tsv"}  # it names the file
            case.expect(not differ, f"other files with status 0: {sorted(differ)}")
    else:
        case.expect(code in (1, 2) and one_line(errors), f"status {code}: {errors[-600:]}")
    reads.write_bytes(content)
    code, errors = wait(bench.start(output, 1, reads=reads))
    case.expect(code == 0 or (code in (1, 2) and one_line(errors)), f"resuming: status {code}: {errors[-600:]}")
    if code:
        case.events.append("refused afterwards")
        code, errors = wait(bench.start(output, 1, "overwrite=true", reads=reads))
        case.expect(code == 0, f"starting over: status {code}: {errors[-600:]}")
    reads.unlink()


WAYS: dict[str, Callable[[Bench, Case, Path], None]] = {
    **dict.fromkeys(("SIGKILL", "SIGTERM", "SIGKILL of two", "SIGTERM of two", "rank lost"), send_signal),
    "at a call": kill_at_a_call,
    "disk full": fill_disk,
    "file damaged": damage_a_file,
    "input replaced": replace_input,
}
