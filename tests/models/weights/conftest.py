"""What the tests of weight files share."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from support import load_safely
from virnucpro_pl.errors import UserError


@pytest.fixture
def refused() -> Callable[..., str]:
    """Call something that must fail as a mistake of the user, and return the message."""

    def check(call: Callable[[], object], *told: object) -> str:
        with pytest.raises(UserError) as caught:
            call()
        message = str(caught.value)
        assert "\n" not in message, "the command line prints it as one line"
        for part in told:
            assert str(part) in message
        return message

    return check


@pytest.fixture
def esm_file(mini: Path) -> Path:
    return mini / "models" / "esm" / "esm2_t2_mini_UR50D.pt"


@pytest.fixture
def dna_folder(mini: Path, tmp_path: Path) -> Path:
    """A copy of the committed DNABERT-S folder, to be damaged."""
    return Path(shutil.copytree(mini / "models" / "DNABERT-S", tmp_path / "DNABERT-S"))


@pytest.fixture
def head_file(mini: Path) -> Path:
    return mini / "models" / "mlp" / "300_model.pth"


@pytest.fixture
def esm_variant(esm_file: Path, tmp_path: Path) -> Callable[..., Path]:
    """Save the committed ESM-2 file after an edit of its content."""

    def save(edit: Callable[[dict[str, Any]], object]) -> Path:
        content = load_safely(esm_file)
        edit(content)
        torch.save(content, tmp_path / "variant.pt")
        return tmp_path / "variant.pt"

    return save
