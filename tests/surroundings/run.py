"""Run tests in other surroundings: another date, locale, umask, processor, order, user, and path of the checkout.

    python tests/surroundings/run.py [--in 'NAME, NAME' ...] [--jobs 2] [TESTS and options of pytest]

Each word after ``--in`` is one run, in surroundings separated by commas; ``--list`` names them. Without it, three runs
that together hold everything that needs no root, as CI does. Without tests, some quick modules; ``tests src`` runs all.
Prints a table, and exits with 1 if a test fails anywhere, or if a surrounding cannot be made here (no C compiler for
dates, no root for another user).
"""

import argparse
import calendar
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
QUICK = (
    *("tests/results/test_comparison.py", "tests/runs/test_score_shards.py", "tests/files/test_digests.py"),
    *(
        "tests/files/test_durable.py",
        "tests/sequence/test_store.py",
        "tests/sequence/test_records.py",
        "tests/test_readme.py",
    ),
)
DATES = {"2001": (2001, 1, 1, 0, 0, 10), "leap day": (2024, 2, 29, 23, 59, 50), "2037": (2037, 12, 31, 12, 0, 0)}
ODD_NAME = "a folder é"
USER = 12345

SURROUNDINGS = (
    *(f"date {name}" for name in DATES),
    *("C locale", "umask 077", "path", "TMPDIR", "no home", "user", "wheel"),
    *("aten default", "aten avx2", "aten avx512", "order 1", "order 2", "order 3"),
)
CI = (
    "date leap day, C locale, umask 077, aten default, order 1",
    "date 2037, path, TMPDIR, no home, order 2",
    "date 2001, aten avx2, order 3",
)


class Impossible(Exception):
    """A surrounding cannot be made on this machine; the message says why."""


class Surroundings:
    """Environment, folder and prefix of a command, changed by one surrounding after the other."""

    def __init__(self, scratch: Path):
        self.scratch = scratch
        self.environment = {**os.environ, "PYTHONPATH": f"{CHECKOUT / 'src'}", "VIRNUCPRO_REQUIRE_GOLDEN": "0"}
        for variable, name in (("VIRNUCPRO_GOLDEN", "golden"), ("VIRNUCPRO_DATA", "data")):
            self.environment.setdefault(variable, str(CHECKOUT.parent / "shared" / name))
        self.folder = CHECKOUT
        self.prefix: list[str] = []
        self.umask = -1

    def change(self, what: str) -> None:
        """Make one surrounding.

        Raises:
            Impossible: it cannot be made here.
        """
        kind, _, value = what.partition(" ")
        match kind:
            case "date":
                shift = calendar.timegm(DATES[value]) - int(time.time())
                self.environment |= {"CLOCK_SHIFT": str(shift), "LD_PRELOAD": str(_built_clock(self.scratch))}
            case "C":
                self.environment |= {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0"}
            case "umask":
                self.umask = int(value, 8)
            case "aten":
                self.environment["ATEN_CPU_CAPABILITY"] = value
            case "order":
                self.environment["VIRNUCPRO_TEST_ORDER"] = value
            case "no":
                self.environment["HOME"] = "/nonexistent"
            case "TMPDIR":
                (self.scratch / ODD_NAME / "tmp").mkdir(parents=True, exist_ok=True)
                self.environment["TMPDIR"] = str(self.scratch / ODD_NAME / "tmp")
            case "path":
                self._copy(self.scratch / ODD_NAME / "checkout")
            case "user":
                if self.folder == CHECKOUT:
                    self._copy(self.scratch / "checkout")
                self._become_user()
            case "wheel":
                self._install_wheel(self.scratch / "site")
            case _:
                raise AssertionError(what)

    def _copy(self, folder: Path) -> None:
        """Run in a copy of the checkout: what git knows or would add."""
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=CHECKOUT, capture_output=True, check=True,
        ).stdout  # fmt: skip
        for name in map(os.fsdecode, filter(None, listed.split(b"\0"))):
            if (CHECKOUT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(CHECKOUT / name, folder / name)
        self.folder = folder
        self.environment["PYTHONPATH"] = str(folder / "src")

    def _install_wheel(self, site: Path) -> None:
        """Test the package as a wheel holds it, with its own ``conf/``."""
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", self.scratch, CHECKOUT], check=True)
        wheel = next(self.scratch.glob("*.whl"))
        subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True)
        self.environment["PYTHONPATH"] = str(site)

    def _become_user(self) -> None:
        if os.getuid() != 0 or not shutil.which("setpriv"):
            raise Impossible("another user takes root and setpriv")
        self.prefix = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
        tmp = self.scratch / "tmp"
        tmp.mkdir()
        self.environment |= {"TMPDIR": str(tmp), "HOME": "/nonexistent"}
        subprocess.run(["chown", "-R", f"{USER}:{USER}", str(self.scratch)], check=True)
        code = "import subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)"
        if subprocess.run([*self.prefix, sys.executable, "-c", code], capture_output=True, check=False).returncode:
            raise Impossible(f"another user cannot run {sys.executable}: install Python where everybody may read it")


def _built_clock(scratch: Path) -> Path:
    library = scratch / "other_date.so"
    if not library.exists():
        compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
        if compiler is None or sys.platform != "linux":
            raise Impossible("another date takes Linux and a C compiler")
        source = Path(__file__).with_name("other_date.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return library


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="surroundings-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(names: str, words: list[str], minutes: float) -> tuple[bool, str]:
    """Run pytest in some surroundings; return whether all is well, and its last lines."""
    with scratch_folder() as scratch:
        made = Surroundings(scratch)
        try:
            for name in names.split(", "):
                made.change(name)
        except Impossible as error:
            return False, f"not run: {error}"
        command = [*made.prefix, sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", *words]
        try:
            done = subprocess.run(
                command, cwd=made.folder, env=made.environment, umask=made.umask, timeout=60 * minutes,
                capture_output=True, text=True, errors="replace", check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return False, f"not done after {minutes:g} minutes"
    lines = done.stdout.strip().splitlines()
    if done.returncode:
        print(done.stdout[-20000:], done.stderr[-2000:], sep="\n")
    return done.returncode == 0, next((line for line in reversed(lines) if " in " in line), done.stderr[-200:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--in", nargs="+", default=[*CI], dest="runs", metavar="'NAME, NAME'")
    parser.add_argument("--list", action="store_true", help="name all surroundings")
    parser.add_argument("--minutes", type=float, default=10.0, help="for each")
    parser.add_argument("--jobs", type=int, default=2, help="how many at the same time")
    options, words = parser.parse_known_args()
    if options.list:
        print(*SURROUNDINGS, sep="\n")
        return
    if unknown := {name for names in options.runs for name in names.split(", ")} - {*SURROUNDINGS}:
        parser.error(f"--in: no such surroundings: {', '.join(sorted(unknown))}; --list names them")
    failed = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        results = pool.map(lambda names: run(names, words or [*QUICK], options.minutes), options.runs)
        for names, (is_well, told) in zip(options.runs, results, strict=True):
            failed += not is_well
            print(f"{names:60} {told}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
