"""Folders import in one direction, and the architecture page shows them (docs/architecture.md)."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support import CHECKOUT

PACKAGE = CHECKOUT / "src" / "virnucpro_pl"
PAGE = (CHECKOUT / "docs" / "architecture.md").read_text(encoding="utf-8")
ROOT = {"__init__", "__main__", "api", "errors", "failures"}
LAYERS = [
    set(re.findall(r"`(\w+)`", line))
    for line in re.findall(r"^\d+\. (`.+)$", PAGE.partition("## Layers")[2].partition("\n## ")[0], re.MULTILINE)
]
LIBRARIES = {
    "torch": {"torch", "transformers", "esm"},
    "Lightning": {"lightning", "transformers", "esm"},
    "Hydra": {"hydra", "omegaconf"},
}
FORBIDDEN = {
    folder: set().union(*(LIBRARIES[name] for name in libraries.split(", ") if name))
    for folder, libraries in re.findall(r"^\| `(\w+)/` \|[^|]*\| ([^|]*?) ?\|$", PAGE, re.MULTILINE)
}
FILES = sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_modules(source: str) -> list[str]:
    modules = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules.append(str(node.module))
    return modules


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    own = part_of(path)
    level = {name: number for number, names in enumerate(LAYERS) for name in names}
    for module in imported_modules(path.read_text(encoding="utf-8")):
        top, *rest = module.split(".")
        assert top not in FORBIDDEN.get(own, set()), f"{own} imports {module}"
        if top == "virnucpro_pl" and rest and own != "__init__":
            assert rest[0] == own or level[rest[0]] < level[own], f"{own} imports {module}"


def test_the_page_names_every_folder() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(FORBIDDEN) == folders
    assert set().union(*LAYERS) == folders | ROOT - {"__init__"}
    assert len(LAYERS) <= 12


def test_five_modules_lie_at_the_root() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == ROOT


def test_the_page_names_files_that_exist() -> None:
    rows = PAGE.partition("## Where to change what")[2]
    named = re.findall(r"`([a-z_]+/(?:[a-z_]+/)*(?:\w+\.py)?)`", rows)
    assert len(named) > 15
    for name in named:
        assert any((folder / name).exists() for folder in (PACKAGE, CHECKOUT, CHECKOUT / "tests")), name


def test_sequence_runs_and_results_start_without_torch() -> None:
    code = (
        "import sys, virnucpro_pl.sequence.store, virnucpro_pl.runs.score_shards, virnucpro_pl.results.tables;"
        "print({'torch', 'lightning', 'transformers'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_files_stay_short() -> None:
    long = {str(path): lines for path in FILES if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 300}
    assert not long
