"""Data and small models shared by the tests."""

import os
import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from support import CHECKOUT, MINI, Result, model_overrides, run_here
from virnucpro_pl.data.tokenizers import DnaTokenizer, ProteinTokenizer, protein_tokenizer
from virnucpro_pl.host.home_folder import provide_caches

collect_ignore = ["fuzz", "surroundings"]  # programs
MUST_HAVE_SHARED = os.environ.get("VIRNUCPRO_REQUIRE_GOLDEN") == "1"

# As __main__ does, for a user without a home folder or a name. Read when torch is imported.
provide_caches()
# As __main__ sets it: the same bits whatever the number of threads. Read when torch is imported.
os.environ.setdefault("MKL_CBWR", "AVX2,STRICT")
# The same examples at every run, however slow: tests/fuzz looks for others.
settings.register_profile("same everywhere", derandomize=True, deadline=None, database=None)
settings.load_profile("same everywhere")
# Tests run side by side; threads that wait for a busy core would slow them manyfold.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# No test asks the hub or any server beyond this machine. Read when huggingface_hub is imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Where there is no GPU, Triton's interpreter runs the CUDA kernels. Read when they are imported.
if not Path("/dev/nvidia0").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")


def _shared(variable: str, name: str) -> Path:
    """A folder that is never committed: named by an environment variable, or beside the checkout."""
    folder = Path(os.environ.get(variable, CHECKOUT.parent / "shared" / name))
    if not folder.is_dir():
        reason = (
            f"the folder '{name}' is not here and too large for the repository: ask the maintainers for it, and set"
            f" {variable} to its path or put it into ../shared (docs/testing.md)"
        )
        if MUST_HAVE_SHARED:
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """Recorded inputs and outputs of the published tool (not committed; GOLDEN.md describes them)."""
    return _shared("VIRNUCPRO_GOLDEN", "golden")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real genomes and reads (not committed)."""
    return _shared("VIRNUCPRO_DATA", "data")


@pytest.fixture(scope="session")
def mini() -> Path:
    """The committed part of the golden data: self-made models, inputs and recorded outputs."""
    return MINI


@pytest.fixture(scope="session")
def mini_overrides(mini: Path) -> list[str]:
    """Command line that selects the mini models."""
    return model_overrides(mini)


@pytest.fixture(scope="session")
def dna_tokenizer(mini: Path) -> DnaTokenizer:
    return DnaTokenizer(str(mini / "models" / "DNABERT-S"))


@pytest.fixture(scope="session")
def proteins_to_tokens() -> ProteinTokenizer:
    return protein_tokenizer()


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    """Give every test the same random numbers, in whatever order they run."""
    random.seed(0)
    np.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests in another order where VIRNUCPRO_TEST_ORDER gives a number for it."""
    if seed := os.environ.get("VIRNUCPRO_TEST_ORDER"):
        random.Random(seed).shuffle(items)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End with what was skipped, and how to run it."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(config, "workerinput"):
        return
    skipped = reporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    for reason, count in sorted(reasons.items()):
        reporter.write_line(f"Skipped {count}: {reason}")


@pytest.fixture
def fasta(tmp_path: Path) -> Callable[..., Path]:
    """Write records given as ``name=sequence`` to a FASTA file."""

    def write(*records: tuple[str, str], name: str = "input.fasta") -> Path:
        path = tmp_path / name
        path.write_text("".join(f">{header}\n{sequence}\n" for header, sequence in records), encoding="utf-8")
        return path

    return write


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run a command in this process, as ``python -m virnucpro_pl`` would."""
    return lambda *arguments: Result(run_here(*arguments), *capfd.readouterr())
