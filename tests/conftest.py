"""Data and small models shared by the tests."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
CHECKOUT = TESTS.parent
MUST_HAVE_SHARED = os.environ.get("VIRNUCPRO_REQUIRE_GOLDEN") == "1"

# As __main__ sets it: the same bits whatever the number of threads. Read when torch is imported.
os.environ.setdefault("MKL_CBWR", "AVX2,STRICT")


def _shared(variable: str, name: str) -> Path:
    """A folder that is never committed: named by an environment variable, or beside the checkout."""
    folder = Path(os.environ.get(variable, CHECKOUT.parent / "shared" / name))
    if not folder.is_dir():
        reason = f"{name} data are not part of the repository; set {variable} to their folder to run this test"
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
    return TESTS / "data" / "golden" / "mini"


@pytest.fixture(scope="session")
def mini_overrides(mini: Path) -> list[str]:
    """Command line that selects the mini models."""
    return model_overrides(mini)


def model_overrides(golden: Path, head: str = "300") -> list[str]:
    """Command line that selects the models of a golden folder."""
    esm = next(path for path in (golden / "models" / "esm").glob("*.pt") if "contact" not in path.name)
    return [
        f"model=virnucpro_{head}",
        f"model.dna_encoder.weights={golden / 'models' / 'DNABERT-S'}",
        f"model.protein_encoder.weights={esm}",
        f"model.head.weights={golden / 'models' / 'mlp' / f'{head}_model.pth'}",
    ]


@pytest.fixture
def fasta(tmp_path: Path) -> Callable[..., Path]:
    """Write records given as ``name=sequence`` to a FASTA file."""

    def write(*records: tuple[str, str], name: str = "input.fasta") -> Path:
        path = tmp_path / name
        path.write_text("".join(f">{header}\n{sequence}\n" for header, sequence in records), encoding="utf-8")
        return path

    return write
