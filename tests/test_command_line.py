"""Flags, bare words and completion come down to settings."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from support import Result
from virnucpro_pl.command_line import BadWordError, hydra_words
from virnucpro_pl.configuration import COMMANDS, CONF
from virnucpro_pl.settings_help import settings_of

Cli = Callable[..., Result]


@pytest.mark.parametrize(
    ("command", "words", "settings"),
    [
        ("predict", ["reads.fa"], ["input=reads.fa"]),
        ("predict", ["a.fa", "b.fa", "-o", "out"], ["input=[a.fa,b.fa]", "output=out"]),
        ("predict", ["-i", "a.fa", "b.fa", "-o", "out"], ["input=[a.fa,b.fa]", "output=out"]),
        (
            "predict",
            ["-", "-t", "4", "-q"],
            ["input=-", "threads=4", "hydra.job_logging.handlers.console.level=WARNING"],
        ),
        ("predict", ["--device", "cpu", "--force"], ["trainer.accelerator=cpu", "overwrite=true"]),
        ("predict", ["--device", "cuda"], ["trainer.accelerator=gpu"]),
        ("predict", ["--device", "cuda:2"], ["trainer.accelerator=gpu", "trainer.devices=[2]"]),
        ("predict", ["-m", "data.token_budget=1,2"], ["-m", "data.token_budget=1,2"]),
        ("predict", ["reads.fa", "--cfg", "job"], ["input=reads.fa", "--cfg", "job"]),
        ("predict", ["--info", "defaults", "--config-dir", "conf"], ["--info", "defaults", "--config-dir", "conf"]),
        ("predict", ["+experiment=x", "~trainer.strategy"], ["+experiment=x", "~trainer.strategy"]),
        ("verify", ["results"], ["output=results"]),
        ("report", ["results", "format=png,svg"], ["output=results", "format=[png,svg]"]),
        ("compare", ["a", "b", "mode=record"], ["reference=a", "candidate=b", "mode=record"]),
        ("export", ["x"], ["x"]),
    ],
)
def test_words_stand_for_settings(command: str, words: list[str], settings: list[str]) -> None:
    assert hydra_words(command, words) == settings
    assert hydra_words(command, settings) == settings, "a rank is started with them once more"


@pytest.mark.parametrize("name", ["a b.fa", "x=1,y.fa", "it's.fa", "-dash.fa"])
def test_files_of_any_name_need_no_key(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.touch()
    parse = OverridesParser.create().parse_override
    assert parse(hydra_words("predict", [str(path)])[0]).value() == str(path)
    assert parse(hydra_words("predict", [str(path), "-i", str(path)])[0]).value() == str(path)
    assert parse(hydra_words("predict", [str(path), str(path)])[0]).value() == [str(path)] * 2


@pytest.mark.parametrize(
    ("words", "told"), [(["-i"], "-i needs a value"), (["--device", "tpu"], "--device tpu: give auto, cpu, cuda")]
)
def test_flags_without_what_they_need_are_told(cli: Cli, words: list[str], told: str) -> None:
    with pytest.raises(BadWordError, match=told):
        hydra_words("predict", words)
    result = cli("predict", *words)
    assert result.code == 2
    assert result.err.startswith(f"Error: {told}")


def test_a_file_is_no_folder_for_results(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    result = cli("predict", "-o", tmp_path / "taken")
    assert result.code == 2
    assert result.err == f"Error: output={tmp_path / 'taken'} is a file; name a folder\n"


def test_flags_do_what_the_settings_do(cli: Cli, tmp_path: Path, mini: Path) -> None:
    reads = mini / "inputs" / "mini.fa"
    result = cli("predict", reads, "-o", tmp_path / "out", "--device", "cpu", "-t", "1", "-q")
    assert result.code == 0
    assert (tmp_path / "out" / "sequences.tsv").exists()
    assert "Stages" not in result.err, "quiet"
    assert "Stages" in (tmp_path / "out" / "run.log").read_text(), "the log has it all the same"
    assert "demo model" in result.err, "but not silent about what matters"
    assert cli("verify", tmp_path / "out").code == 0
    assert cli("predict", reads, "-o", tmp_path / "out", "--force", "-q", "--device", "cpu").code == 0
    refused = cli("predict", reads, "-t", "0", "-o", tmp_path / "other")
    assert refused.code == 2
    assert "threads=0: give a number above 0" in refused.err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_every_setting(cli: Cli, command: str) -> None:
    result = cli(command, "--help")
    assert result.code == 0, result.err
    settings = settings_of(CONF, command)
    for setting in settings:
        assert f"\n  {setting.key}={setting.default}\n" in result.out
    if command != "benchmark":  # whose architecture is explained as a whole
        assert [setting.key for setting in settings if not setting.meaning] == []


def test_the_settings_that_help_tells_are_those_there_are() -> None:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from virnucpro_pl.configuration import register_resolvers

    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for command in ("predict", "compare", "report", "verify", "train", "test", "prepare", "embed"):
            cfg = compose(command)
            for setting in settings_of(CONF, command):
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
