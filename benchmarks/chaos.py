"""Disturb running predictions, resume them, and compare their files with those of undisturbed runs.

    python benchmarks/chaos.py --cases 50 --jobs 2 [--ways "at a call" "file damaged"] [--minutes 10]

- SIGKILL and SIGTERM at any moment: of one process, of a run of two, of one rank of two;
- SIGKILL right before a chosen rename, unlink, fsync or open for writing;
- a full disk (a small tmpfs, which needs root);
- a flipped bit, a zeroed or a lost end in one file after the other of the work folder of a killed run;
- an input that is replaced, changed, cut short or appended to while the run is on.

What was disturbed is started again by the same command, with one or two processes. It must end with the result files of
the undisturbed run, byte for byte, which `verify` finds well. Where a file was damaged or an input changed, it may
refuse in one line until it is told to start over. Prints one line per case, writes them as a table to ``--table``, and
ends with one line of JSON. Exit status: 0 if all cases are well, else 1, and their folders are kept.
"""

import argparse
import json
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from chaos_bench import Bench, Case, parts_in, verify, wait
from chaos_ways import WAYS, can_mount, small_disk

from virnucpro_pl.benchmarking.synthetic_reads import write_reads

READS, LENGTH = 3000, 300
KEPT_AS_READ = {"input replaced"}
"""Ways after which the run is resumed within the case, on a file of its own"""


def run_case(bench: Bench, case: Case) -> Case:
    with ExitStack() as stack:
        folder = bench.folder / f"case-{case.number}"
        if case.way == "disk full":
            stack.enter_context(small_disk(folder, "64m"))
        else:
            folder.mkdir()
        output = folder / "out"
        WAYS[case.way](bench, case, output)
        case.parts = parts_in(output)
        if case.way not in KEPT_AS_READ:
            devices = case.random.choice([1, 2])
            code, errors = wait(bench.start(output, devices))
            case.expect(code == 0, f"resuming ended with {code}: {errors[-600:]}")
            case.events.append(f"resumed on {devices}")
        check_results(bench, case, output)
    if not case.mistakes:
        shutil.rmtree(folder, ignore_errors=True)
    return case


def check_results(bench: Bench, case: Case, output: Path) -> None:
    """Compare what a case has left in the end with the undisturbed run."""
    different = bench.differing(output)
    if case.way in KEPT_AS_READ:
        different = [name for name in different if name != "sequences.tsv"]  # it names the file
    case.expect(not different, f"differ: {different}")
    case.expect(not (output / ".work").exists(), "the work folder is still there")
    verified = verify(output)
    case.expect(verified.returncode == 0, f"verify: {verified.stderr[-300:]}")
    record = (output / "run.json").read_text(encoding="utf-8") if (output / "run.json").exists() else ""
    resumed = re.search(r'"resumed": (\d+)', record)
    case.events.append(f"{case.parts} parts; {resumed[1] if resumed else '?'} resumption(s) on record")


def run_cases(bench: Bench, options: argparse.Namespace, ways: list[str]) -> list[Case]:
    """Run the cases, some at a time, until the time is over."""
    deadline = time.monotonic() + 60 * options.minutes
    rounds: Counter[str] = Counter()
    cases = []
    for number in range(options.cases):
        way = ways[number % len(ways)]
        cases.append(Case(number, rounds[way], way, random.Random(f"{options.seed} {number}")))
        rounds[way] += 1
    done = []
    with ThreadPoolExecutor(options.jobs) as pool, options.table.open("w", encoding="utf-8") as table:
        table.write("way\tverdict\twhat\n")
        for case in pool.map(lambda case: run_case(bench, case) if time.monotonic() < deadline else None, cases):
            if case is None:
                continue
            done.append(case)
            verdict, what = "; ".join(case.mistakes) or "well", "; ".join(case.events)
            print(f"{len(done):3} {case.way:15} {verdict:6} | {what}", flush=True)
            table.write(f"{case.way}\t{verdict}\t{what}\n")
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=50, help="how many predictions are disturbed")
    parser.add_argument("--jobs", type=int, default=1, help="how many at the same time")
    parser.add_argument("--minutes", type=float, default=60.0, help="no case begins later")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--accelerator", choices=["cpu", "gpu"], default="cpu", help="gpu needs two of them")
    parser.add_argument("--ways", nargs="+", choices=[*WAYS], default=[*WAYS])
    parser.add_argument("--table", type=Path, default=Path("chaos.tsv"))
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    ways = [way for way in options.ways if way != "disk full" or can_mount(folder / "disk")]
    if len(ways) < len(options.ways):
        print("disk full: left out, a small disk cannot be mounted here")
    bench = Bench(folder, write_reads(READS, LENGTH, options.seed, folder).path, options.accelerator)
    began = time.monotonic()
    for devices in (1, 2):
        bench.undisturbed(devices)
    print(f"undisturbed: {bench.seconds[1]:.1f} s with one process, {bench.seconds[2]:.1f} s with two; {bench.calls}")
    cases = run_cases(bench, options, ways)
    well = Counter(case.way for case in cases if not case.mistakes)
    facts = {
        "cases": dict(Counter(case.way for case in cases)),
        "well": dict(well),
        "with_scores_on_disk": sum(case.parts > 0 for case in cases),
        "seconds": round(time.monotonic() - began),
        "seed": options.seed,
    }
    print(json.dumps(facts), flush=True)
    if well.total() < len(cases):
        sys.exit(f"kept for a look: {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
