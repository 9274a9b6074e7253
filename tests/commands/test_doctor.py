"""``doctor`` says what is there, what to fix, and exits accordingly."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support import MINI, Result, model_overrides

Cli = Callable[..., Result]
CPU = "trainer.accelerator=cpu"


def lines_of(result: Result) -> dict[str, tuple[str, str]]:
    """State and text by what was looked at."""
    rows = [line.split(None, 1) for line in result.err.splitlines() if line.startswith(("ok ", "note ", "fix "))]
    return {rest[:24].strip(): (state, rest[25:]) for state, rest in rows}


def test_the_demo_model_predicts_anywhere(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = cli("doctor", CPU)
    assert result.code == 0, result.err
    found = lines_of(result)
    for part in ("dna_encoder", "protein_encoder", "head"):
        assert found[f"model.{part}"][0] == "ok"
    assert "150 to 500 nt" in found["model.head"][1]
    assert found["prediction"][0] == "ok"
    assert "runs" in found["attention of ESM-2"][1]
    assert "Ready: model=demo" in result.err
    assert list(tmp_path.iterdir()) == [], "nothing is written"


def test_weights_on_disk_are_found_and_tried(cli: Cli) -> None:
    result = cli("doctor", CPU, *model_overrides(MINI))
    assert result.code == 0, result.err
    assert lines_of(result)["model.head"][1].endswith("for chunks of 300 nt")


def test_what_is_missing_is_said_with_what_to_do(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    result = cli("doctor", CPU, "model=virnucpro_500", "model.protein_encoder.weights=no/such/file.pt")
    assert result.code == 1
    found = lines_of(result)
    assert found["model.head"] == (
        "fix",
        f"model.head.weights=500_model.pth: no such file in {Path.cwd()}; take it from the published repository,"
        " Li-Jing-1997/VirNucPro, and give model.head.weights=PATH",
    )
    assert found["model.protein_encoder"] == ("fix", "no/such/file.pt: no such file or folder; check the path")
    assert found["model.dna_encoder"][0] == "fix"
    assert "give model.dna_encoder.weights=FOLDER" in found["model.dna_encoder"][1]
    assert "prediction" not in found, "what cannot work is not tried"
    assert "3 problem(s) found" in result.err
    assert "Traceback" not in result.err


def test_what_will_be_fetched_is_no_mistake(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("VIRNUCPRO_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", None)  # whoever asks a server fails
    result = cli("doctor", CPU, "model=virnucpro_300")
    assert result.code == 0, result.err
    assert lines_of(result)["model.head"][0] == "note"
    assert "prediction" not in lines_of(result)
    assert lines_of(result)["model.dna_encoder"] == (
        "note",
        "zhihan1996/DNABERT-S is not on this machine; it is fetched when it is first needed",
    )


def test_weights_that_do_not_fit_are_found_by_trying(cli: Cli) -> None:
    """Each part is there and well, and together they are no model."""
    head = MINI / "models" / "mlp" / "300_model.pth"
    result = cli("doctor", CPU, f"model.head.weights={head}")
    assert result.code == 1
    assert lines_of(result)["prediction"][0] == "fix"


def test_a_device_that_is_not_there_is_refused(cli: Cli) -> None:
    result = cli("doctor", f"trainer.accelerator={'mps' if sys.platform == 'linux' else 'gpu'}")
    assert result.code == 2
    assert "trainer: " in result.err
