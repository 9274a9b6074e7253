"""What the documentation shows works: its commands compose, its Python runs, the notebook gives what it shows."""

import json
import re
import shlex
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from support import CHECKOUT, Result
from virnucpro_pl.cli.command_line import hydra_words
from virnucpro_pl.configuration.hydra_config import COMMANDS, CONF, register_resolvers

PAGES = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
NOTEBOOK = CHECKOUT / "docs" / "examples" / "python_api.ipynb"
PROGRAM = r"(?:python -m virnucpro_pl|virnucpro-pl)"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def commands() -> list[tuple[str, list[str]]]:
    """Every command line in a shell block, as words after the program."""
    found = []
    for page in PAGES:
        for block in blocks(page, "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                if match := re.search(rf"(?:^|\s){PROGRAM} (.*)", line):
                    words = shlex.split(match[1], comments=True)
                    if words[0] in COMMANDS:
                        found.append((page.name, words))
    return found


COMMANDS_SHOWN = commands()


def test_there_are_commands_to_look_at() -> None:
    assert len(COMMANDS_SHOWN) > 30
    assert {words[0] for _, words in COMMANDS_SHOWN} >= {"predict", "report", "compare", "train", "test", "doctor"}


@pytest.mark.parametrize(("page", "words"), COMMANDS_SHOWN, ids=lambda value: value if isinstance(value, str) else None)
def test_commands_that_are_shown_can_be_typed(page: str, words: list[str]) -> None:
    """R43: every key and choice is there."""
    register_resolvers()
    command, *rest = words
    settings = [word for word in hydra_words(command, rest) if not word.startswith("-")]
    settings = [_first_value(word) for word in settings if not word.startswith("hydra") and "$" not in word]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        compose(command, settings)


def _first_value(setting: str) -> str:
    """Of a sweep's values, the first."""
    key, _, value = setting.partition("=")
    value = re.sub(r"^(?:choice|interval|range)\((.*)\)$", r"\1", value)
    return f"{key}={value if value[:1] in ('[', '{', chr(39)) else value.split(',')[0]}"


def test_python_that_is_shown_runs(cli: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reads.fasta").write_text(f">read\n{'ATGGCTGCAGCTGCTGGTGCTGCA' * 8}\n")
    assert cli("predict", "output=results", "trainer.accelerator=cpu").code == 0
    shown = [block for name in ("api.md", "results.md") for block in blocks(CHECKOUT / "docs" / name, "python")]
    here = [block for block in shown if all(find_spec(name) for name in imported(block))]
    assert len(here) > 4
    for block in here:
        exec(compile(block, "documentation", "exec"), {})


def imported(block: str) -> list[str]:
    """Names of the packages a block imports; pandas, polars and duckdb may be absent."""
    return re.findall(r"^(?:import|from) (\w+)", block, re.MULTILINE)


def test_notebook_gives_what_it_shows(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: make test-optional")
    nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed: make test-optional")
    shown = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    run = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(
        run, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    checked = 0
    for before, after in zip(shown["cells"], run.cells, strict=True):
        told = [text_of(output) for output in before.get("outputs", [])]
        assert told == [text_of(output) for output in after.get("outputs", []) if output.get("name") != "stderr"]
        checked += len(told)
    assert checked > 6


def text_of(output: dict) -> str:
    text = output.get("text") or output.get("data", {}).get("text/plain", "")
    return text if isinstance(text, str) else "".join(text)
