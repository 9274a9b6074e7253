"""Flags, bare words, help and completion."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from support import Result
from virnucpro_pl.cli.command_line import hydra_words
from virnucpro_pl.configuration.hydra_config import COMMANDS, CONF, register_resolvers
from virnucpro_pl.configuration.settings import help_text_of, settings_of
from virnucpro_pl.configuration.text_settings import as_typed

Cli = Callable[..., Result]


@pytest.mark.parametrize(
    ("command", "words", "settings"),
    [
        ("predict", ["reads.fa"], ["input=reads.fa"]),
        ("predict", ["a.fa", "b.fa", "-o", "out"], ["input=[a.fa,b.fa]", "output=out"]),
        ("predict", ["-i", "a.fa", "b.fa", "-o", "out"], ["input=[a.fa,b.fa]", "output=out"]),
        ("predict", ["--output=x", "--", "-o"], ["input=-o", "output=x"]),
        (
            "predict",
            ["-", "-t", "4", "-q"],
            ["input=-", "threads=4", "hydra.job_logging.handlers.console.level=WARNING"],
        ),
        ("predict", ["--device", "cpu", "--force"], ["trainer.accelerator=cpu", "overwrite=true"]),
        ("predict", ["--device", "cuda"], ["trainer.accelerator=gpu"]),
        ("predict", ["--device", "cuda:2"], ["trainer.accelerator=gpu", "trainer.devices=[2]"]),
        ("predict", ["-m", "data.token_budget=1,2"], ["-m", "data.token_budget=1,2"]),
        ("predict", ["-m", "reads.fa", "data.token_budget=1,2"], ["-m", "input=reads.fa", "data.token_budget=1,2"]),
        ("predict", ["reads.fa", "--cfg", "job"], ["--cfg", "job", "input=reads.fa"]),
        ("predict", ["+experiment=x", "~trainer.strategy"], ["+experiment=x", "~trainer.strategy"]),
        ("verify", ["results"], ["output=results"]),
        ("report", ["results", "format=png,svg"], ["output=results", "format=[png,svg]"]),
        ("compare", ["a", "b", "mode=record"], ["reference=a", "candidate=b", "mode=record"]),
        ("predict", ["+data.embedding_cache=1_1"], ["+data.embedding_cache=1_1"]),
    ],
)
def test_words_stand_for_settings(command: str, words: list[str], settings: list[str]) -> None:
    assert [as_typed(word) for word in hydra_words(command, words)] == settings


@pytest.mark.parametrize("name", ["a b.fa", "x=1,y.fa", "it's.fa", "-dash.fa", "+plus", "~tilde"])
def test_a_file_that_is_there_needs_no_key(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).touch()
    assert [as_typed(word) for word in hydra_words("predict", [name])] == [f"input={name}"]


def test_a_setting_stays_one_though_a_file_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("overwrite=true").touch()
    assert hydra_words("predict", ["overwrite=true"]) == ["overwrite=true"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-i"], "-i: a value is missing after it"),
        (["--device", "tpu"], "--device tpu: give auto, cpu, cuda"),
        (["--forc"], "--forc: no such flag; did you mean --force?"),
        (["-v"], "-v: no such flag"),
    ],
)
def test_wrong_flags_are_refused_in_one_line(cli: Cli, words: list[str], message: str) -> None:
    result = cli("predict", *words)
    assert result.code == 2
    assert result.err.startswith(f"Error: {message}")
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["overwite=true"], "overwite=true: predict has no such setting; did you mean overwrite?"),
        (["+overwite=true"], "+overwite=true: predict has no such setting; did you mean overwrite?"),
        (
            ["++data.chunk_lenght=3"],
            "configuration of FastaDataModule: got an unexpected keyword argument 'chunk_lenght'; did you mean",
        ),
        (["modle=demo"], "modle=demo: predict has no such setting; did you mean model?"),
        (["model=virnucpro300"], "model=virnucpro300: no such choice; did you mean virnucpro_300?"),
        (["data.chunk_length=abc"], "data.chunk_length=abc: give a whole number of bases"),
        (["data.chunk_length=1.5"], "data.chunk_length=1.5: give a whole number of bases"),
        (["results.threshold=high"], "results.threshold=high: give a number, or null"),
        (["results.min_viral_fraction=true"], "results.min_viral_fraction=true: give a number"),
        (["overwrite=yes"], "overwrite=yes: give true or false"),
        (["callbacks.progress.seconds=soon"], "callbacks.progress.seconds=soon: give a number"),
        (["+callbacks.foo=1"], "callbacks.foo=1: give a class"),
        (["data.token_budget=1,2"], "data.token_budget=1,2: several values make a sweep, which needs -m"),
        (["data.token_budget=("], "data.token_budget=(: cannot be read"),
        (["-m", "hydra/sweeper=optua"], "hydra/sweeper=optua: no such plugin; optuna comes with"),
        (["~nothing"], "~nothing: predict has no such setting"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(cli: Cli, words: list[str], message: str) -> None:
    """G1, I5, I6: without the advice of Hydra, and with and without its +."""
    result = cli("predict", *words)
    assert result.code == 2, result.err
    lines = result.err.splitlines()
    assert any(line.startswith(f"Error: {message}") or line.startswith(f"Error: +{message}") for line in lines), lines
    assert len(lines) == 1
    assert "HYDRA_FULL_ERROR" not in result.err


def test_a_key_in_a_file_that_nothing_reads_is_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\noverwite: true\n")
    result = cli("predict", "--config-dir", tmp_path, "experiment=mine")
    assert result.code == 2
    assert result.err.startswith("Error: overwite: predict has no such setting; did you mean overwrite?")
    (tmp_path / "experiment" / "mine.yaml").write_text("a: [\n")
    result = cli("predict", "--config-dir", tmp_path, "experiment=mine")
    assert result.code == 2
    assert result.err.count("\n") == 1


MISTAKES = [
    ["predict", "missing.fa"],
    ["predict", "overwite=true"],
    ["predict", "data.chunk_length=abc"],
    ["predict", "--config-dir=nowhere"],
    ["predict", "model.head.weights=./missing.pth"],
    ["predict", "-o", "taken/below"],
    ["predict", "modle=demo"],
    ["predict"[:-1]],
    ["train", "input=missing"],
    ["train", "input=x", "trainer.max_epochs=abc"],
    ["predict", "trainer.num_nodes=1.5"],
    ["test", "input=missing", "model.head.weights=x"],
    ["prepare", "input=missing"],
    ["compare", "missing", "missing"],
    ["export"],
]


def test_mistakes_are_reported_before_torch_is_imported(tmp_path: Path) -> None:
    """D2: one process makes all mistakes; no heavy module is imported."""
    (tmp_path / "taken").touch()
    script = (
        "import json, sys\n"
        "from virnucpro_pl import __main__ as program\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    sys.argv[:] = ['virnucpro-pl', *words]\n"
        "    try: program.main()\n"
        "    except SystemExit as stop: assert stop.code == 2, (words, stop.code)\n"
        "    else: raise AssertionError(words)\n"
        "    heavy = {'torch', 'lightning', 'transformers', 'matplotlib'} & set(sys.modules)\n"
        "    assert not heavy, (words, heavy)\n"
    )
    command = [sys.executable, "-c", script, json.dumps(MISTAKES)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert len(result.stderr.splitlines()) == len(MISTAKES)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"], "nothing is written"


def test_a_file_is_no_folder_for_results(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    result = cli("predict", "-o", tmp_path / "taken")
    assert result.code == 2
    assert result.err == f"Error: output={tmp_path / 'taken'}: {tmp_path / 'taken'} is a file; name a folder\n"


def test_flags_do_what_the_settings_do(cli: Cli, tmp_path: Path, mini: Path) -> None:
    reads = mini / "inputs" / "mini.fa"
    result = cli("predict", reads, "-o", tmp_path / "out", "--device", "cpu", "-t", "1", "-q")
    assert result.code == 0
    assert (tmp_path / "out" / "sequences.tsv").exists()
    assert "Stages" not in result.err, "quiet"
    assert "Stages" in (tmp_path / "out" / "run.log").read_text(encoding="utf-8"), "the log has it all the same"
    assert "demo model" in result.err, "but not silent about what matters"
    assert cli("verify", tmp_path / "out").code == 0
    assert cli("predict", reads, "-o", tmp_path / "out", "--force", "-q", "--device", "cpu").code == 0
    refused = cli("predict", reads, "-t", "0", "-o", tmp_path / "other")
    assert refused.code == 2
    assert "threads=0: give a " in refused.err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_describes_every_setting(cli: Cli, command: str) -> None:
    result = cli(command, "--help")
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert max(map(len, lines)) <= 100
    shown = {words[0] for line in lines if (words := line.split())}
    for setting in settings_of(command):
        assert setting.description, setting.key
        assert "${" not in setting.default or "efault" in setting.description or "." in setting.key, setting.key
        is_summarized = (
            setting.key.startswith(("embedding.trainer.", "embedding.callbacks.")) or ".pinned." in setting.key
        )
        assert is_summarized or setting.key in shown


def test_overview_lists_every_command(cli: Cli) -> None:
    lines = cli("--help").out.splitlines()
    assert max(map(len, lines)) <= 100
    assert {line.split()[0] for line in lines if line.startswith("  ")} >= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_in_help_compose(command: str) -> None:
    register_resolvers()
    examples = re.findall(r"^  virnucpro-pl (.+)$", help_text_of(command), re.MULTILINE)
    assert examples
    for example in examples:
        name, *words = shlex.split(example)
        settings = [word for word in hydra_words(name, words) if word != "-m"]
        settings = [word if "'" in word or "[" in word else word.partition(",")[0] for word in settings]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            compose(name, settings)


def test_settings_in_help_exist() -> None:
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for command in ("predict", "compare", "report", "verify", "train", "test", "prepare", "embed"):
            cfg = compose(command)
            for setting in settings_of(command):
                parent, _, key = setting.key.rpartition(".")
                keys = set(OmegaConf.select(cfg, parent) if parent else cfg)  # also those without a value
                assert key in keys, setting.key


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("virnucpro-pl ", {"predict", "train", "verify"}),
        ("virnucpro-pl pre", {"predict", "prepare"}),
        ("virnucpro-pl predict mod", {"model", "model."}),
        ("virnucpro-pl predict model=vir", {"model=virnucpro_300", "model=virnucpro_500"}),
        ("virnucpro-pl predict data.chunk", {"data.chunk_length=", "data.chunking="}),
        ("virnucpro-pl train optimizer=", {"optimizer=sgd", "optimizer=adamw"}),
    ],
)
def test_the_shell_completes(cli: Cli, monkeypatch: pytest.MonkeyPatch, line: str, found: set[str]) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    result = cli("-sc", "query=bash")
    assert result.code == 0, result.err
    assert found <= set(result.out.split())


def test_completion_is_installed_for_the_program(cli: Cli) -> None:
    result = cli("-sc", "install=bash")
    assert result.code == 0
    assert result.out.rstrip().endswith("virnucpro-pl")
