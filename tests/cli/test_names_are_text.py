"""B: text settings reach every command exactly as typed, from words, flags, YAML files and Python.

``VIRNUCPRO_NAMES`` sets the number of names that each test tries, ``VIRNUCPRO_SEED`` their choice.
"""

import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from support import Result, file_name
from virnucpro_pl.api import configuration_of
from virnucpro_pl.cli.command_line import hydra_words
from virnucpro_pl.configuration.hydra_config import COMMANDS, CONF, build, register_resolvers, value_of
from virnucpro_pl.configuration.settings import settings_of
from virnucpro_pl.configuration.text_settings import as_typed, encoded, is_text, list_override, split_list, takes_list
from virnucpro_pl.errors import UserError

NAMES = int(os.environ.get("VIRNUCPRO_NAMES", "75"))
SEED = int(os.environ.get("VIRNUCPRO_SEED", "0"))
HARD = [
    *("1_1", "1e3", "0x1F", "007", "1.0", ".5", "inf", "nan", "true", "no", "null", "~", "~/x", "???", "2026-11-28"),
    *("${oc.env:HOME}", "${", "\\${x}", "$(x)", "`x`", '${literal:"x"}', "%41", "a%", "{}", "{a: b}", "[", "]", "[a]b"),
    *("a,b", "a=b", "=", "output=x", "it's", '"', "'a'", '"a b"', "\\", "end\\", "q\\'.fa", " ", " lead", "trail "),
    *("a\tb", "a\nb", "\r", "#x", "a #x", ": x", "- x", "!!int 3", "&a", "*a", "@", "?", "a:b", "é", "Gewässer"),
    *("\u202e", "\udcff", "-", "--", "-m", "--force", "-.fa", "+x", "~x", "x" * 250, "a\x1b[2Jb", "choice(1,2)"),
    *("glob(*)", "<<", "..", "./a"),
]


def names(count: int) -> Iterator[str]:
    """Yield hard names, then random ones: any bytes but / and NUL, many that some grammar interprets."""
    generator = random.Random(SEED)
    signs = b"[]{}()<>$%&*?!#'\"`\\|;:,.=+-_~^@ \t\n01eEx"
    yield from map(file_name, HARD[:count])
    for _ in range(count - len(HARD)):
        length = generator.randint(1, 12)
        if generator.random() < 0.5:
            yield os.fsdecode(bytes(generator.choice(signs) for _ in range(length)))
        else:
            yield os.fsdecode(bytes(generator.choice([*range(1, 47), *range(48, 256)]) for _ in range(length)))


def text_keys(command: str) -> list[str]:
    """Return the text settings of a command."""
    keys = {one.key for one in settings_of(command) if is_text(one.key)} - {"data.input", "paths.default_output"}
    return sorted(keys | ({"model.dna_encoder.revision"} if "model.dna_encoder.weights" in keys else set()))


@pytest.fixture(autouse=True)
def _resolvers() -> None:
    register_resolvers()


def composed(command: str, words: Sequence[str]) -> DictConfig:
    overrides = hydra_words(command, words)
    assert all(override.isascii() and override.isprintable() for override in overrides), (
        "Hydra gets printable ASCII only"
    )
    with initialize_config_dir(str(CONF), version_base="1.3"):
        model = ["model=virnucpro_500"] if any("revision" in word for word in words) else []
        return compose(command, [*model, *overrides])


def in_groups(items: list[str], size: int) -> Iterator[list[str]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def as_file(name: str) -> str:
    """Return the file that a word after ``--`` names; it is never standard input."""
    return "./-" if name == "-" else name


def is_list_syntax(name: str) -> bool:
    return name.startswith("[") and name.endswith("]")


@pytest.mark.parametrize("command", COMMANDS)
def test_key_value(command: str) -> None:
    keys = text_keys(command)
    if not keys:
        return
    for group in in_groups([*names(NAMES if len(keys) > 2 else NAMES // 3)], len(keys)):
        given = {
            key: name for key, name in zip(keys, group, strict=False) if not (takes_list(key) and is_list_syntax(name))
        }
        cfg = composed(command, [f"{key}={name}" for key, name in given.items()])
        assert {key: value_of(cfg, key) for key in given} == given


def test_built_objects_get_the_literal_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """``hydra.utils.instantiate`` resolves the result of an interpolation again."""
    monkeypatch.setenv("SECRET", "secret")
    for name in (*map(file_name, HARD), "${oc.env:SECRET}"):
        cfg = composed("predict", [f"model.head.weights={name}", f"output={name}", "--", name])
        assert build(cfg.model.head).weights == name
        assert build({"_target_": "builtins.dict", "a": [{"b": cfg.output}]}) == {"a": [{"b": name}]}
        assert build(cfg.callbacks.ranks)._folder == Path(name if name != "-" else cfg.paths.default_output) / ".work"
        assert OmegaConf.to_container(cfg, resolve=False)["input"] == encoded(as_file(name))


@pytest.mark.parametrize("command", ["predict", "embed", "verify", "report"])
def test_words(command: str) -> None:
    key = "input" if command in ("predict", "embed") else "output"
    for name in names(NAMES // 3):
        assert value_of(composed(command, ["--", name]), key) == as_file(name)


def test_several_words_and_flags() -> None:
    for group in in_groups([*names(NAMES)], 20):
        assert value_of(composed("predict", ["--", *group]), "input") == [*map(as_file, group)]
    for name in names(NAMES // 3):
        cfg = composed("predict", [f"--input={name}", f"--output={name}"])
        assert (cfg.input, cfg.output) == (name, name)
        if not name.startswith(("-", "+", "~")) and "=" not in name:
            cfg = composed("predict", ["-i", name, "-o", name])
            assert (cfg.input, cfg.output) == (name, name)
            assert value_of(composed("predict", ["-i", name, "x", name]), "input") == [name, "x", name]


def test_lists() -> None:
    for group in in_groups([*names(NAMES)], 20):
        written = as_typed(list_override("input", group))
        assert value_of(composed("predict", [written]), "input") == group, "the override as typed can be typed again"
        assert split_list(written.partition("=")[2]) == group


def test_configuration_files(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "model").mkdir()
    keys = text_keys("predict")
    for group in in_groups([name for name in names(NAMES) if is_yaml(name)], len(keys)):
        given = dict(zip(keys, group, strict=False))
        nested = OmegaConf.create({})
        for key in given:
            OmegaConf.update(nested, key, "PLACE", force_add=True)
        content = yaml.safe_dump(with_values(OmegaConf.to_container(nested), given), allow_unicode=True)
        (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{content}", encoding="utf-8")
        cfg = composed("predict", ["--config-dir", str(tmp_path), "experiment=mine"])
        assert {key: value_of(cfg, key) for key in given} == given
    plain = "# @package _global_\noutput: 1_1\ninput: [1e3, '${oc.env:HOME}', no]\nthreads: 2\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(plain)
    cfg = composed("predict", ["--config-dir", str(tmp_path), "experiment=mine"])
    assert (cfg.output, list(cfg.input), cfg.threads) == ("1_1", ["1e3", "${oc.env:HOME}", "no"], 2)
    plain = "# @package _global_\noutput: &here 1_1\ndata: {embedding_cache: *here}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(plain)
    cfg = composed("predict", ["--config-dir", str(tmp_path), "experiment=mine"])
    assert (cfg.output, cfg.data.embedding_cache) == ("1_1", "1_1"), "an alias is encoded once"


def is_yaml(name: str) -> bool:
    """Return whether YAML, which is Unicode text, can hold a name."""
    return name.isprintable() and name != "???"


def with_values(node: Any, given: dict[str, str], key: str = "") -> Any:
    if isinstance(node, dict):
        return {name: with_values(below, given, f"{key}.{name}".lstrip(".")) for name, below in node.items()}
    return given[key]


def test_the_python_interface() -> None:
    for name in names(NAMES // 3):
        cfg = configuration_of("demo", {"model.head.weights": name, "model.fallback_head": Path("x") / name})
        assert (cfg.model.head.weights, cfg.model.fallback_head) == (name, str(Path("x") / name))


def test_encoded_text_is_shown_as_typed() -> None:
    for name in names(10 * NAMES):
        assert as_typed(f"output='{encoded(name)}'") == f"output={name}"


@pytest.mark.parametrize(
    "name", ["1_1", "${oc.env:HOME}", "a,b", "it's #1", "[x]", "-x", "d\u00e9j\u00e0 vu", "\udcff"]
)
def test_files_of_these_names_are_read_and_written(
    name: str, cli: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mini: Path
) -> None:
    """B1, B2: a decoy with the name that a parser of numbers would read is unchanged."""
    monkeypatch.chdir(tmp_path)
    name = file_name(name)
    decoy = tmp_path / "11"
    decoy.mkdir()
    (decoy / "precious").write_text("mine")
    Path(f"{name}.fa").write_bytes((mini / "inputs" / "mini.fa").read_bytes())
    before = {path.name for path in tmp_path.iterdir()}
    result = cli("predict", f"--output={name}", "trainer.accelerator=cpu", "--", f"{name}.fa")
    assert result.code == 0, result.err
    assert {path.name for path in tmp_path.iterdir()} == {*before, name}
    assert cli("verify", "--", name).code == 0
    again = cli("predict", f"--output={name}", "--force", "trainer.accelerator=cpu", f"input={name}.fa")
    assert again.code == 0, again.err
    assert [path.name for path in decoy.iterdir()] == ["precious"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["output="], "output=: its value is empty; name a folder"),
        (["input="], "input=: its value is empty; name a file"),
        (["-o"], "-o: a value is missing after it"),
        (["a.fa", "input=b.fa"], "input is given twice"),
        (["--input=a.fa", "input=b.fa"], "input is given twice"),
        (["-o", "a", "output=b"], "output is given twice"),
        (["-.fa"], "-.fa: no such flag"),
        (["--out", "x"], "--out: no such flag; did you mean --output?"),
        (["--cfg", "jop"], "--cfg jop: give one of job, hydra, all"),
        (["--config-dir", "nowhere"], "--config-dir nowhere: no such folder"),
    ],
)
def test_contradictions_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=r".") as refused:
        hydra_words("predict", words)
    assert str(refused.value).startswith(message)
