"""Translation of typed words to Hydra's overrides: flags, bare file names and literal text.

Each flag stands for settings; ``--cfg job`` prints the result.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from virnucpro_pl.configuration.hydra_config import CONF
from virnucpro_pl.configuration.literal_files import source_of
from virnucpro_pl.configuration.settings import settings_of
from virnucpro_pl.configuration.text_settings import (
    is_text,
    list_override,
    split_list,
    takes_list,
    text_override,
    typed_override,
)
from virnucpro_pl.errors import UserError, did_you_mean, escaped

_SETTING = re.compile(r"(?P<prefix>[~+]{0,2})(?P<key>[A-Za-z_][\w./@-]*)(?P<equals>=)?(?P<value>.*)", re.DOTALL)
_VALUE_FLAGS = {
    **dict.fromkeys(("-i", "--input"), "input"),
    **dict.fromkeys(("-o", "--output"), "output"),
    **dict.fromkeys(("-t", "--threads"), "threads"),
    "--device": "device",
}
"""Flags with a value, and the setting that they stand for; ``--device`` stands for two"""
_SWITCHES = {
    "--force": ("overwrite", "true"),
    **dict.fromkeys(("-q", "--quiet"), ("hydra.job_logging.handlers.console.level", "WARNING")),
}
_HYDRA_VALUE_FLAGS = {"--cfg", "-c", "--package", "-p", "--info"}
_HYDRA_SWITCHES = {"-h", "--help", "--hydra-help", "-m", "--multirun", "-r", "--run", "--resolve"}
_FOLDER_FLAGS = {"--config-dir", "-cd"}
_FLAGS = sorted({*_VALUE_FLAGS, *_SWITCHES, *_HYDRA_VALUE_FLAGS, *_HYDRA_SWITCHES, *_FOLDER_FLAGS})
_CFG_CHOICES = ("job", "hydra", "all")
_BARE_KEYS = {
    **dict.fromkeys(("predict", "embed", "prepare", "train", "test"), ("input",)),
    **dict.fromkeys(("verify", "report"), ("output",)),
    "weights": ("action", "folder"),
    "compare": ("reference", "candidate"),
}
"""Settings that words without a key stand for; the last one takes all further words"""
_WORD_LISTS = {("report", "format")}
"""Settings that take ``a,b`` as a list, not as a sweep"""


def hydra_words(command: str, words: Sequence[str]) -> list[str]:
    """Translate the words after a command to flags of Hydra and overrides.

    Raises:
        UserError: a flag is unknown, lacks its value or has a wrong one, or a setting is given twice.

    >>> hydra_words("predict", ["-t", "2", "--device", "cuda:1", "results.tie=virus"])
    ['threads=2', 'trainer.accelerator=gpu', 'trainer.devices=[1]', 'results.tie=virus']
    """
    return _Translation(command, words).result()


class _Translation:
    """Translation of one command line, word by word."""

    def __init__(self, command: str, words: Sequence[str]):
        self._command = command
        self._rest = list(words)
        self._bare: list[str] = []
        self._hydra_flags: list[str] = []
        self._overrides: list[tuple[str, str]] = []  # key and override
        self._unique_keys: list[str] = []  # given by flags or bare words, so not to be given again

    def result(self) -> list[str]:
        while self._rest:
            self._translate(self._rest.pop(0))
        overrides = [*self._bare_overrides(), *self._overrides]
        keys = [key for key, _ in overrides]
        # Of key=value given twice the last one holds, as everywhere in Hydra.
        for key in self._unique_keys:
            if keys.count(key) > 1:
                advice = "; several files are given one after another, or as input=[a,b]" if key == "input" else ""
                raise UserError(f"{key} is given twice{advice}")
        return [*self._hydra_flags, *(override for _, override in overrides)]

    def _translate(self, word: str) -> None:
        flag, equals, value = word.partition("=")
        if word == "--":
            self._bare += ["./-" if name == "-" else name for name in self._rest]  # a file, not standard input
            self._rest = []
        elif word in _SWITCHES:
            key, value = _SWITCHES[word]
            self._overrides.append((key, f"{key}={value}"))
        elif flag in _VALUE_FLAGS:
            key = _VALUE_FLAGS[flag]
            self._add_flag(flag, key, [value] if equals else list(self._take_values(several=key == "input")))
        elif flag in _FOLDER_FLAGS | _HYDRA_VALUE_FLAGS:
            values = [value] if equals else self._rest[:1]
            del self._rest[: 0 if equals else 1]
            self._add_hydra_flag(flag, values)
        elif word in _HYDRA_SWITCHES:
            self._hydra_flags.append(word)
        elif self._is_bare(word):
            self._bare.append(word)
        elif word.startswith("-"):
            raise UserError(f"{escaped(flag)}: no such flag{did_you_mean(flag, _FLAGS)}; `{self._command} --help`")
        else:
            self._add_setting(word)

    def _take_values(self, several: bool) -> Iterator[str]:
        """Remove the values of a flag from the remaining words."""
        if self._rest and self._rest[0] not in _FLAGS:
            yield self._rest.pop(0)
        while several and self._rest and self._is_bare(self._rest[0]):
            yield self._rest.pop(0)

    def _is_bare(self, word: str) -> bool:
        """Return whether a word is neither flag nor setting. Existing files are no flags, but may be settings."""
        if word.startswith("-") and word != "-":
            return word not in _FLAGS and os.path.lexists(word)
        match = _SETTING.fullmatch(word)
        if match is None or not (match["equals"] or match["prefix"]):
            return True
        return not _is_setting(self._command, match["key"]) and os.path.lexists(word)

    def _add_flag(self, flag: str, key: str, values: list[str]) -> None:
        _require_value(flag, values)
        if key == "device":
            self._overrides += [(one.partition("=")[0], one) for one in _device(values[0])]
        else:
            self._overrides.append((key, self._override(key, values)))
        if is_text(key):
            self._unique_keys.append(key)

    def _add_hydra_flag(self, flag: str, values: list[str]) -> None:
        _require_value(flag, values)
        (value,) = values
        if flag in _FOLDER_FLAGS:
            if not Path(value).is_dir():
                raise UserError(f"{flag} {escaped(value)}: no such folder")
            self._overrides.append(("hydra.searchpath", f"hydra.searchpath=['{source_of(value)}']"))
            return
        if flag in ("-c", "--cfg") and value not in _CFG_CHOICES:
            raise UserError(f"{flag} {escaped(value)}: give one of {', '.join(_CFG_CHOICES)}")
        self._hydra_flags += [flag, value]

    def _add_setting(self, word: str) -> None:
        match = _SETTING.fullmatch(word)
        assert match is not None, "other words are bare"
        prefix, key, value = match["prefix"], match["key"], match["value"]
        override = word
        if is_text(key) and match["equals"] and prefix in ("", "+", "++"):
            if not value and key in ("input", "output"):
                raise UserError(f"{key}=: its value is empty; name a {'file' if key == 'input' else 'folder'}")
            override = typed_override(f"{prefix}{key}", value)
        elif (self._command, key) in _WORD_LISTS and re.fullmatch(r"\w+(,\w+)+", value):
            override = f"{key}=[{value}]"
        elif key == "hydra.searchpath" and value.startswith("["):
            sources = ",".join(f"'{source_of(one.removeprefix('file://'))}'" for one in split_list(value))
            override = f"{key}=[{sources}]"
        self._overrides.append((key, override))

    def _bare_overrides(self) -> Iterator[tuple[str, str]]:
        keys = _BARE_KEYS.get(self._command, ())
        if self._bare and not keys:
            raise UserError(
                f"{escaped(self._bare[0])}: {self._command} takes settings only, as KEY=VALUE"
                f"; `{self._command} --help` lists them"
            )
        for number, key in enumerate(keys):
            names = self._bare[number:] if number == len(keys) - 1 else self._bare[number : number + 1]
            if names:
                self._unique_keys.append(key)
                yield key, self._override(key, names)

    def _override(self, key: str, values: list[str]) -> str:
        if not is_text(key):
            return f"{key}={values[0]}"
        if len(values) == 1:
            return text_override(key, values[0])
        if not takes_list(key):
            raise UserError(f"{escaped(values[1])}: one word too many; {self._command} takes one {key}")
        return list_override(key, values)


def _require_value(flag: str, values: list[str]) -> None:
    if not values or not all(values):
        raise UserError(f"{flag}: a value is missing after it")


def _is_setting(command: str, key: str) -> bool:
    """Return whether a command has a setting, or a group of settings, of this name."""
    names = (one.key for one in settings_of(command))
    return is_text(key) or (CONF / key).is_dir() or any(key == name or name.startswith(f"{key}.") for name in names)


def _device(name: str) -> list[str]:
    """Return the settings that ``--device`` stands for."""
    match name.partition(":"):
        case [("auto" | "cpu" | "mps") as kind, "", ""]:
            return [f"trainer.accelerator={kind}"]
        case ["cuda", _, number] if number.isascii() and number.isdigit():
            return ["trainer.accelerator=gpu", f"trainer.devices=[{number}]"]
        case ["cuda", "", ""]:
            return ["trainer.accelerator=gpu"]
    raise UserError(f"--device {escaped(name)}: give auto, cpu, cuda, cuda:N or mps")
