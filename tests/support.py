"""What tests need beside fixtures."""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

TESTS = Path(__file__).parent
CHECKOUT = TESTS.parent
MINI = TESTS / "data" / "golden" / "mini"


class Result(NamedTuple):
    """What a user sees of a command."""

    code: int
    out: str
    err: str


def model_overrides(golden: Path, head: str = "300") -> list[str]:
    """Command line that selects the models of a golden folder."""
    esm = next(path for path in (golden / "models" / "esm").glob("*.pt") if "contact" not in path.name)
    return [
        f"model=virnucpro_{head}",
        f"model.dna_encoder.weights={golden / 'models' / 'DNABERT-S'}",
        f"model.protein_encoder.weights={esm}",
        f"model.head.weights={golden / 'models' / 'mlp' / f'{head}_model.pth'}",
    ]


def load_safely(path: Path) -> Any:
    """Content of a fair-esm checkpoint, as plain objects."""
    import torch  # conftest sets its environment before it is imported

    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, weights_only=True)
