"""What recipes ask for is what pyproject.toml asks for, and their versions are the program's."""

import re
import tomllib
from pathlib import Path

import jinja2
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import virnucpro_pl
from support import CHECKOUT

PACKAGING = CHECKOUT / "packaging"
RECIPE = PACKAGING / "conda" / "meta.yaml"
ENVIRONMENT = PACKAGING / "nextflow" / "modules" / "local" / "virnucpro" / "predict" / "environment.yml"
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
"""Where conda-forge calls a package otherwise"""


def wanted(requirements: list[str]) -> dict[str, SpecifierSet]:
    """Bounds by conda's name."""
    parsed = [Requirement(text) for text in requirements]
    return {canonicalize_name(CONDA_NAMES.get(item.name, item.name)): item.specifier for item in parsed}


def given(entries: list[str]) -> dict[str, SpecifierSet]:
    """Bounds of a recipe's ``name >=1`` or an environment's ``name>=1``."""
    assert len(entries) == len(set(entries))
    split = [re.fullmatch(r"([\w.-]+) ?(.*)", entry).groups() for entry in entries]
    return {canonicalize_name(name): SpecifierSet(bound) for name, bound in split}


@pytest.fixture(scope="module")
def recipe() -> dict[str, object]:
    """The recipe as conda-build reads it."""
    template = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(RECIPE.read_text(encoding="utf-8"))
    return yaml.safe_load(template.render(PYTHON="python", pin_subpackage=lambda name, max_pin: f"{name} {max_pin}"))


def environment() -> list[str]:
    return yaml.safe_load(ENVIRONMENT.read_text(encoding="utf-8"))["dependencies"]


def test_conda_dependencies_are_those_of_the_project(recipe: dict) -> None:
    listed = given(recipe["requirements"]["run"])
    python = listed.pop("python")
    assert listed == wanted(PROJECT["dependencies"])
    assert {str(bound) for bound in SpecifierSet(PROJECT["requires-python"])} < {str(bound) for bound in python}
    assert str(python) == str(given(recipe["requirements"]["host"])["python"]), "else it is built for others"


def test_environment_of_the_nextflow_module_is_that_of_the_recipe(recipe: dict) -> None:
    assert given(environment()) == given(recipe["requirements"]["run"])


def test_conditions_of_dependencies_hold_wherever_the_recipe_installs(recipe: dict) -> None:
    """A noarch recipe has no conditions, so a Python for which a dependency is not wanted must be left out."""
    python = given(recipe["requirements"]["run"])["python"]
    minors = [f"3.{minor}" for minor in range(30) if f"3.{minor}" in python]
    assert len(minors) > 1
    markers = [marker for text in PROJECT["dependencies"] if (marker := Requirement(text).marker)]
    assert all(marker.evaluate({"python_version": minor}) for marker in markers for minor in minors)


def test_bounds_of_optional_packages_are_those_of_the_extras(recipe: dict) -> None:
    extras = PROJECT["optional-dependencies"]
    assert given(recipe["requirements"]["run_constrained"]) == wanted([*extras["bam"], *extras["lora"]])


def test_host_builds_with_what_the_project_builds_with(recipe: dict) -> None:
    build_system = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]
    host = given(recipe["requirements"]["host"])
    assert wanted(build_system["requires"]).items() <= host.items()


def test_recipe_describes_this_program(recipe: dict) -> None:
    assert recipe["package"] == {"name": PROJECT["name"], "version": virnucpro_pl.__version__}
    assert recipe["build"]["entry_points"] == [f"{name} = {where}" for name, where in PROJECT["scripts"].items()]
    assert recipe["about"]["license"] == PROJECT["license"]
    assert recipe["about"]["summary"] == PROJECT["description"]
    assert (RECIPE.parent / recipe["source"]["path"]).resolve() == CHECKOUT.resolve()
    assert (CHECKOUT / recipe["about"]["license_file"]).is_file()


def test_commands_that_test_the_package_work(recipe: dict, cli: object) -> None:
    commands = [command.split() for command in recipe["test"]["commands"]]
    assert ["virnucpro-pl", "--version"] in commands
    for program, *arguments in commands:
        assert program in PROJECT["scripts"]
        assert cli(*arguments).code == 0, arguments


def files_that_name_versions() -> list[Path]:
    return [path for path in [*PACKAGING.rglob("*"), CHECKOUT / "docs" / "packaging.md"] if path.is_file()]


def test_every_version_of_the_program_is_the_current_one() -> None:
    patterns = [
        r"virnucpro_pl:([\d.]+\d)",  # tags of images
        r"ARG VERSION=(.+)",
        r"image\.version ([\d.]+)",
        r"virnucpro-pl: ([\d.]+)",
        r'set version = "(.+?)"',
    ]
    found: dict[str, set[str]] = {pattern: set() for pattern in patterns}
    for path in files_that_name_versions():
        for pattern in patterns:
            found[pattern] |= set(re.findall(pattern, path.read_text(encoding="utf-8")))
    assert found == {pattern: {virnucpro_pl.__version__} for pattern in patterns}
