"""How much a run says, and that it gives no advice it cannot vouch for."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support import model_overrides

ADVICE = re.compile(r"bottleneck|consider|suggest|increas|tip:|warn|deprecat|recommend", re.IGNORECASE)


@pytest.fixture(scope="module")
def lines(mini: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[str]]:
    """Everything on both streams, with one batch and with fifty; in a process whose warnings are as users see them."""
    said = {}
    for token_budget in (10**6, 1):
        output = tmp_path_factory.mktemp("log")
        command = [sys.executable, "-m", "virnucpro_pl", "predict", f"input={mini / 'inputs' / 'mini.fa'}"]
        command += [f"output={output}", "trainer.accelerator=cpu", f"data.token_budget={token_budget}"]
        command += model_overrides(mini)
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
        result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        said[token_budget] = (result.stdout + result.stderr).splitlines()
        logged = (output / "run.log").read_text(encoding="utf-8").splitlines()
        assert len(logged) == len(said[token_budget]), "log and terminal differ"
    return said


def test_log_does_not_grow_with_the_batches(lines: dict[int, list[str]]) -> None:
    """R39: a rewrite wrote 54 warnings of an I/O bottleneck that was none."""
    assert any("over 1 batches" in line for line in lines[10**6])
    assert any(re.search(r"over \d\d batches", line) for line in lines[1])
    assert len(lines[1]) == len(lines[10**6]) < 40


def test_no_library_gives_advice(lines: dict[int, list[str]]) -> None:
    ours = "records are shorter than"  # of the reads, which are
    assert not [line for line in lines[1] + lines[10**6] if ADVICE.search(line) and ours not in line]
