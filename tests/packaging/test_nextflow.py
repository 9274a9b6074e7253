"""The Nextflow module, without Nextflow: its blocks filled in as Groovy would, and run."""

import fnmatch
import gzip
import json
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import virnucpro_pl
from support import CHECKOUT
from virnucpro_pl.configuration import PACKAGE
from virnucpro_pl.output_files import RESULT_FILES
from virnucpro_pl.reporting.formats import EXTRA_FILES

MODULE = CHECKOUT / "packaging" / "nextflow" / "modules" / "local" / "virnucpro" / "predict"
SAMPLE = PACKAGE / "demo" / "sample.fasta.gz"
MAIN = (MODULE / "main.nf").read_text(encoding="utf-8")
RUN_FILES = ("run.json", "run.log")
DEFAULTS = {
    "prefix": "sample",
    "sequences": "reads.fa",
    "task.cpus": "1",
    "task.process": "PIPELINE:VIRNUCPRO_PREDICT",
    "device": "cpu",
    "weights": "",
    "args": "",
    "nonviral": "false",
    "fastq": "false",
}


def block(name: str, **values: str) -> str:
    """The command of a block as Groovy makes it; a variable that is not given is an error."""
    code = re.search(rf'\n    {name}:\n.*?"""\n(.*?)"""', MAIN, re.DOTALL)[1]
    variables = DEFAULTS | values
    pattern = re.compile(r"\\(.)|\$\{([\w.]+)\}", re.DOTALL)
    return textwrap.dedent(pattern.sub(lambda match: match[1] or variables[match[2]], code))


def emitted() -> dict[str, tuple[str, bool]]:
    """File name or pattern of each output in the folder ``prefix``, and whether it may be missing."""
    found = re.findall(r'path\("\$\{prefix\}/(.+?)"\)\s*, emit: (\w+)\s*(, optional: true)?', MAIN)
    return {name: (pattern, bool(optional)) for pattern, name, optional in found}


def names_of(pattern: str) -> set[str]:
    """What a pattern with {a,b} or * stands for, among what the program may write."""
    match = re.fullmatch(r"(.*)\{(.*)\}(.*)", pattern)
    if match:
        return {match[1] + word + match[3] for word in match[2].split(",")}
    return set(fnmatch.filter(EXTRA_FILES, pattern)) if "*" in pattern else {pattern}


@pytest.fixture
def run_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Run a block in a folder of its own, as Nextflow does, and return that folder."""
    programs, folder = tmp_path / "bin", tmp_path / "task"
    programs.mkdir()
    folder.mkdir()
    program = programs / "virnucpro-pl"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m virnucpro_pl "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")

    def run(name: str, **values: str) -> Path:
        command = ["bash", "-euo", "pipefail", "-c", block(name, **values)]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return folder

    return run


def versions(folder: Path) -> object:
    return yaml.safe_load((folder / "versions.yml").read_text(encoding="utf-8"))


def test_outputs_are_files_of_the_program() -> None:
    always = {name for pattern, optional in emitted().values() if not optional for name in names_of(pattern)}
    sometimes = {name for pattern, optional in emitted().values() if optional for name in names_of(pattern)}
    assert always == {*RESULT_FILES, *RUN_FILES}
    assert sometimes == set(EXTRA_FILES)


def test_description_has_the_modules_inputs_and_outputs() -> None:
    described = yaml.safe_load((MODULE / "meta.yml").read_text(encoding="utf-8"))
    outputs = {name: next(iter(elements[0][1])) for name, elements in described["output"].items() if name != "versions"}
    assert outputs == {name: f"${{prefix}}/{pattern}" for name, (pattern, _) in emitted().items()}
    assert list(described["output"])[-1] == "versions"
    inputs = re.search(r"\n    input:\n(.*?)\n\n", MAIN, re.DOTALL)[1]
    names = re.findall(r"val\((\w+)\)|path\((\w+)\)|path (\w+)", inputs)
    assert [name for channel in described["input"] for element in channel for name in element] == [
        "".join(groups) for groups in names
    ]
    for channel in [*described["input"], *(elements[0] for elements in described["output"].values() if elements[0])]:
        for element in channel if isinstance(channel, list) else [channel]:
            assert all({"type", "description"} <= content.keys() for content in element.values())


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"sequences": r"odd\ \(name\),\ x=1.fa", "prefix": "sample 1"},
        {
            "sequences": "r1.fq.gz r2.fq.gz",
            "device": "cuda trainer.devices=2 trainer.strategy=ddp",
            "weights": "model.dna_encoder.weights=dna_encoder/DNABERT-S  model.head.weights=head/300_model.pth",
            "args": "model=virnucpro_300 formats.fastq=true",
            "nonviral": "true",
            "fastq": "true",
        },
    ],
)
def test_blocks_are_commands_bash_takes(values: dict[str, str]) -> None:
    for name in ("script", "stub"):
        result = subprocess.run(["bash", "-n"], input=block(name, **values), capture_output=True, text=True)
        assert (result.returncode, result.stderr) == (0, "")


def test_script_predicts_a_file_of_any_name(run_block: Callable[..., Path], tmp_path: Path) -> None:
    shutil.copy(SAMPLE, tmp_path / "task" / "odd (name), x=1.fa")
    args = " ".join(f"formats.{key}=true" for key in ("nonviral", "kraken", "bed", "multiqc"))
    folder = run_block("script", sequences=r"odd\ \(name\),\ x=1.fa", prefix="sample (1), a=b", args=args)
    written = {path.name for path in (folder / "sample (1), a=b").iterdir()}
    expected = {name: names_of(pattern) for name, (pattern, _) in emitted().items() if name != "fastq"}
    assert written == set().union(*expected.values())
    assert versions(folder) == {DEFAULTS["task.process"]: {"virnucpro-pl": virnucpro_pl.__version__}}
    run = json.loads((folder / "sample (1), a=b" / "run.json").read_text(encoding="utf-8"))
    assert run["config"]["threads"] == 1
    assert len((folder / "sample (1), a=b" / "sequences.tsv").read_text().splitlines()) == 45


@pytest.mark.parametrize("extras", [False, True])
def test_stub_makes_what_is_emitted(extras: bool, run_block: Callable[..., Path]) -> None:
    flag = str(extras).lower()
    folder = run_block("stub", prefix="sample 1", nonviral=flag, fastq=flag)
    written = {path.name for path in (folder / "sample 1").iterdir()}
    for name, (pattern, optional) in emitted().items():
        if not optional or (extras and name in ("others", "fastq")):
            assert names_of(pattern) & written, name
    assert written <= {*RESULT_FILES, *RUN_FILES, *EXTRA_FILES}
    zipped = list((folder / "sample 1").glob("*.gz"))
    assert len(zipped) == (3 if extras else 0)
    assert all(gzip.decompress(path.read_bytes()) == b"\n" for path in zipped)
    assert versions(folder) == {DEFAULTS["task.process"]: {"virnucpro-pl": virnucpro_pl.__version__}}
