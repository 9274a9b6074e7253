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
from support import CHECKOUT, file_name
from virnucpro_pl.configuration.hydra_config import PACKAGE
from virnucpro_pl.errors import escaped
from virnucpro_pl.files.output_files import RESULT_FILES
from virnucpro_pl.reporting.formats import EXTRA_FILES

MODULE = CHECKOUT / "packaging" / "nextflow" / "modules" / "local" / "virnucpro" / "predict"
SAMPLE = PACKAGE / "demo" / "sample.fasta.gz"
MAIN = (MODULE / "main.nf").read_text(encoding="utf-8")
RUN_FILES = ("run.json", "run.log")
DEFAULTS = {
    "folder": "'sample'",
    "reads": "'reads.fa'",
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


def quoted(*texts: str) -> str:
    """As the closure ``quoted`` of the module does it; the next test holds both together."""
    return " ".join("'" + text.replace("'", "'\\''") + "'" for text in texts)


def test_what_a_shell_would_read_is_quoted() -> None:
    assert MAIN.count("""def quoted = { text -> "'" + text.toString().replace("'", "'\\\\''") + "'" }""") == 2
    assert ".collect { quoted(it) }.join(' ')" in MAIN
    assert MAIN.count("def folder = quoted(prefix)") == 2
    for part in ("dna_encoder", "protein_encoder", "head"):
        assert f'{part} ? quoted("model.{part}.weights=${{{part}}}")' in MAIN
    scripts = re.findall(r'"""\n(.*?)"""', MAIN, re.DOTALL)
    used = {name for script in scripts for name in re.findall(r"(?<!\\\\)\$\{([\w.]+)\}", script)}
    assert used == {"folder", "reads", "weights", "args", "device", "nonviral", "fastq", "task.cpus", "task.process"}


def test_names_that_nextflow_would_not_find_again_are_refused() -> None:
    """It takes names of outputs for patterns."""
    (pattern,) = re.findall(r"prefix =~ /(.*)/\)", MAIN)
    assert all(re.search(pattern, f"a{letter}b") for letter in "*?[]{}\\")
    assert not re.search(pattern, 'sample 1 (a), it\'s $x="2"; é#~&')


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
        {"reads": quoted("odd (name), x=1.fa"), "folder": quoted("sample 1")},
        {
            "reads": quoted("r1.fq.gz", "r2.fq.gz"),
            "device": "cuda trainer.devices=2 trainer.strategy=ddp",
            "weights": quoted("model.dna_encoder.weights=dna_encoder/DNABERT-S") + "  ",
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


NAMES = ["odd (name), x=1.fa", 'it\'s $HOME `x` "y"; z & [1-2]{a,b}*?.fa', "-i.fa", "1_1", "a=b", "${x:y}"]
NAMES += [file_name("é#~!.fa"), "--"]
FOLDERS = [file_name('sample (1), it\'s a=$HOME; "b" é#~!'), "-o", "1_1", "output=x", "$(x:y)"]


def test_script_predicts_files_of_any_name(run_block: Callable[..., Path], tmp_path: Path) -> None:
    """Each name reaches the program as it is, through Groovy and the shell."""
    for number, name in enumerate(NAMES):
        (tmp_path / "task" / name).write_text(f">read_{number}\n{'ATGGCTGCTAAAGCTGCTGCTGGT' * 6}\n")
    head = "it's $x (1), [2].safetensors"
    shutil.copy(PACKAGE / "demo" / "head.safetensors", tmp_path / "task" / head)
    args = " ".join(f"formats.{key}=true" for key in ("nonviral", "kraken", "bed", "multiqc"))
    values = {"reads": quoted(*NAMES), "weights": quoted(f"model.head.weights={head}"), "args": args}
    folder = run_block("script", folder=quoted(FOLDERS[0]), **values)
    results = folder / FOLDERS[0]
    expected = {name: names_of(pattern) for name, (pattern, _) in emitted().items() if name != "fastq"}
    assert {path.name for path in results.iterdir()} == set().union(*expected.values())
    assert versions(folder) == {DEFAULTS["task.process"]: {"virnucpro-pl": virnucpro_pl.__version__}}
    run = json.loads((results / "run.json").read_text(encoding="utf-8"))
    assert run["config"]["threads"] == 1
    assert run["model"]["weights"]["head"]["path"].endswith(head)
    rows = (results / "sequences.tsv").read_text(encoding="utf-8").splitlines()[1:]
    assert [row.rsplit("\t", 1)[1] for row in rows] == [*map(escaped, NAMES)]
    made = {path.name for path in folder.iterdir()} - {*NAMES, head, FOLDERS[0], "versions.yml", ".cache"}
    assert not made, "no folder that was not named"


@pytest.mark.parametrize("name", FOLDERS[1:])
def test_script_predicts_into_a_folder_of_any_name(name: str, run_block: Callable[..., Path], tmp_path: Path) -> None:
    shutil.copy(SAMPLE, tmp_path / "task" / "reads.fa")
    folder = run_block("script", folder=quoted(name))
    assert len((folder / name / "sequences.tsv").read_text().splitlines()) == 45
    assert {path.name for path in folder.iterdir()} <= {"reads.fa", name, "versions.yml", ".cache"}


@pytest.mark.parametrize("extras", [False, True])
def test_stub_makes_what_is_emitted(extras: bool, run_block: Callable[..., Path]) -> None:
    flag = str(extras).lower()
    folder = run_block("stub", folder=quoted("it's $1"), nonviral=flag, fastq=flag)
    written = {path.name for path in (folder / "it's $1").iterdir()}
    for name, (pattern, optional) in emitted().items():
        if not optional or (extras and name in ("others", "fastq")):
            assert names_of(pattern) & written, name
    assert written <= {*RESULT_FILES, *RUN_FILES, *EXTRA_FILES}
    zipped = list((folder / "it's $1").glob("*.gz"))
    assert len(zipped) == (3 if extras else 0)
    assert all(gzip.decompress(path.read_bytes()) == b"\n" for path in zipped)
    assert versions(folder) == {DEFAULTS["task.process"]: {"virnucpro-pl": virnucpro_pl.__version__}}
