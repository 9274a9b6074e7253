"""Imports point one way (docs/decisions/0002-layout.md)."""

import ast
import subprocess
import sys

import pytest

from support import CHECKOUT

PACKAGE = CHECKOUT / "src" / "virnucpro_pl"
LAYERS = [
    {"errors", "output_files"},
    {"file_kinds", "standard_streams"},
    {"failures", "host_memory", "read_ahead", "stages", "durable", "stopping", "folder_lock", "log_file", "launchers"}
    | {"standard_output", "home_folder", "file_names"},
    {"process_environment"},
    {"digests", "fetching"},
    {"sequence"},
    {"results", "encoders", "head"},
    {"weights", "data", "reporting"},
    {"module"},
    {"callbacks", "budget", "calling"},
    {"strategy"},
    {"benchmarking"},
    {"training"},
    {"settings_help", "text_settings"},
    {"literal_files"},
    {"configuration"},
    {"composition"},
    {"sequence_input", "command_line", "output_folder", "preflight", "python_settings", "setting_limits"},
    {"settings_check"},
    {"api", "checkup"},
    {"commands", "sweep", "hydra_files"},
    {"__main__"},
]
FORBIDDEN = {
    "sequence": {"torch", "lightning", "transformers", "esm"},
    "results": {"torch", "lightning", "transformers", "esm"},
    "reporting": {"torch", "lightning", "hydra", "omegaconf"},
    "encoders": {"lightning", "hydra", "omegaconf"},
    "head": {"lightning", "hydra", "omegaconf"},
    "data": {"hydra", "omegaconf"},
    "module": {"hydra", "omegaconf"},
    "weights": {"lightning", "hydra", "omegaconf"},
    "callbacks": {"hydra", "omegaconf"},
    "benchmarking": {"hydra", "omegaconf"},
    "budget": {"hydra", "omegaconf"},
    "failures": {"torch", "lightning"},
    "sweep": {"torch", "lightning"},
    "training": {"hydra", "omegaconf"},
    "fetching": {"torch", "lightning", "hydra", "omegaconf"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imported_modules(source: str) -> list[str]:
    modules = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules.append(str(node.module))
    return modules


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path) -> None:
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    level = {name: number for number, names in enumerate(LAYERS) for name in names}
    for module in imported_modules(path.read_text(encoding="utf-8")):
        top, *rest = module.split(".")
        assert top not in FORBIDDEN.get(own, set()), f"{own} imports {module}"
        if top == "virnucpro_pl" and rest and own != "__init__":
            assert rest[0] == own or level[rest[0]] < level[own], f"{own} imports {module}"


def test_every_part_has_its_layer() -> None:
    parts = {path.relative_to(PACKAGE).with_suffix("").parts[0] for path in FILES} - {"__init__"}
    assert parts == set().union(*LAYERS)


def test_sequence_and_results_start_without_torch() -> None:
    code = (
        "import sys, virnucpro_pl.sequence.store, virnucpro_pl.results.tables;"
        "print({'torch', 'lightning', 'transformers'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_files_stay_short() -> None:
    long = {str(path): lines for path in FILES if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 300}
    assert not long
