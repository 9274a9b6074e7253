"""From what users type to what Hydra takes: file names without quotes, the usual short flags, shell completion.

Every flag stands for settings, one to one; ``--cfg job`` shows what they came to.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from virnucpro_pl.configuration.hydra_config import CONF
from virnucpro_pl.configuration.literal_files import source_of
from virnucpro_pl.configuration.settings import settings_of
from virnucpro_pl.configuration.text_settings import is_text, listed, setting, single, split_list, takes_list
from virnucpro_pl.errors import UserError, did_you_mean, escaped

_SETTING = re.compile(r"(?P<prefix>[~+]{0,2})(?P<key>[A-Za-z_][\w./@-]*)(?P<equals>=)?(?P<value>.*)", re.DOTALL)
_VALUES = {
    **dict.fromkeys(("-i", "--input"), "input"),
    **dict.fromkeys(("-o", "--output"), "output"),
    **dict.fromkeys(("-t", "--threads"), "threads"),
    "--device": "",
}
"""Flags with a value, and the setting they stand for"""
_SWITCHES = {
    "--force": ["overwrite=true"],
    **{flag: ["hydra.job_logging.handlers.console.level=WARNING"] for flag in ("-q", "--quiet")},
}
_HYDRA_VALUES = {"--cfg", "-c", "--package", "-p", "--info"}
_HYDRA_SWITCHES = {"-h", "--help", "--hydra-help", "-m", "--multirun", "-r", "--run", "--resolve"}
_CONFIG_DIR = {"--config-dir", "-cd"}
_FLAGS = sorted({*_VALUES, *_SWITCHES, *_HYDRA_VALUES, *_HYDRA_SWITCHES, *_CONFIG_DIR})
_CHOICES = {"-c": ("job", "hydra", "all"), "--cfg": ("job", "hydra", "all")}
_BARE = {
    "predict": ["input"], "embed": ["input"], "prepare": ["input"], "train": ["input"], "test": ["input"],
    "weights": ["action", "folder"], "verify": ["output"], "report": ["output"], "compare": ["reference", "candidate"],
}  # fmt: skip
"""What words without a key are for, by command; the last key takes all that are left"""
_WORD_LISTS = {"report": {"format"}}
"""Settings of which ``a,b`` is a list of words, which Hydra would take for a sweep"""


def hydra_words(command: str, words: Sequence[str]) -> list[str]:
    """Translate what follows the command: flags of Hydra first, then settings.

    Args:
        command: the first word.
        words: the others.

    Raises:
        UserError: a flag is unknown, or lacks its value or has a wrong one, or a setting is given twice.

    >>> hydra_words("predict", ["-t", "2", "--device", "cuda:1", "results.tie=virus"])
    ['threads=2', 'trainer.accelerator=gpu', 'trainer.devices=[1]', 'results.tie=virus']
    """
    return _Translation(command, words).result()


class _Translation:
    """The words of one command line, taken one by one."""

    def __init__(self, command: str, words: Sequence[str]):
        self._command = command
        self._rest = list(words)
        self._bare: list[str] = []
        self._flags: list[str] = []
        self._settings: list[tuple[str, str]] = []  # key and override
        self._by_flag: list[str] = []  # keys that were given with a flag

    def result(self) -> list[str]:
        while self._rest:
            self._take(self._rest.pop(0))
        of_bare = list(self._of_bare())
        settings = [*of_bare, *self._settings]
        self._refuse_repeated([*(key for key, _ in of_bare), *self._by_flag], [key for key, _ in settings])
        return [*self._flags, *(override for _, override in settings)]

    @staticmethod
    def _refuse_repeated(as_words: list[str], keys: list[str]) -> None:
        """Refuse names given in two ways; of ``key=value`` given twice the last one holds, as everywhere in Hydra."""
        for key in as_words:
            if keys.count(key) > 1:
                advice = "; several files are given one after another, or as input=[a,b]" if key == "input" else ""
                raise UserError(f"{key} is given twice{advice}")

    def _take(self, word: str) -> None:
        flag, equals, value = word.partition("=")
        if word == "--":
            self._bare += ["./-" if one == "-" else one for one in self._rest]  # a file, not standard input
            self._rest = []
        elif word in _SWITCHES:
            self._settings += [(override.partition("=")[0], override) for override in _SWITCHES[word]]
        elif flag in _VALUES:
            self._take_value(flag, [value] if equals else list(self._values(several=_VALUES[flag] == "input")))
        elif flag in _CONFIG_DIR or flag in _HYDRA_VALUES:
            self._take_hydra_flag(flag, [value] if equals else self._rest[:1])
            del self._rest[: 0 if equals else 1]
        elif word in _HYDRA_SWITCHES:
            self._flags.append(word)
        elif self._is_bare(word):
            self._bare.append(word)
        elif word.startswith("-"):
            raise UserError(f"{escaped(flag)}: no such flag{did_you_mean(flag, _FLAGS)}; `{self._command} --help`")
        else:
            self._take_setting(word)

    def _values(self, several: bool) -> Iterator[str]:
        """Take the values of a flag off the words that follow it."""
        if self._rest and self._rest[0] not in _FLAGS:
            yield self._rest.pop(0)
        while several and self._rest and self._is_bare(self._rest[0]):
            yield self._rest.pop(0)

    def _is_bare(self, word: str) -> bool:
        """Return whether a word is neither a flag nor a setting; a file that exists is never a flag."""
        if word.startswith("-") and word != "-":
            return word not in _FLAGS and os.path.lexists(word)
        match = _SETTING.fullmatch(word)
        if match is None or not (match["equals"] or match["prefix"]):
            return True
        return not _is_setting(self._command, match["key"]) and os.path.lexists(word)

    def _take_value(self, flag: str, values: list[str]) -> None:
        if not values or not all(values):
            raise UserError(f"{flag}: a value is missing after it")
        match _VALUES[flag]:
            case "":
                self._settings += [(one.partition("=")[0], one) for one in _device(values[0])]
            case "threads":
                self._settings.append(("threads", f"threads={values[0]}"))
            case key:
                self._by_flag.append(key)
                self._settings.append((key, self._of_names(key, values)))

    def _take_hydra_flag(self, flag: str, values: list[str]) -> None:
        if not values or not values[0]:
            raise UserError(f"{flag}: a value is missing after it")
        if flag not in _CONFIG_DIR:
            choices = _CHOICES.get(flag)
            if choices and values[0] not in choices:
                raise UserError(f"{flag} {escaped(values[0])}: give one of {', '.join(choices)}")
            self._flags += [flag, values[0]]
        elif Path(values[0]).is_dir():
            self._settings.append(("hydra.searchpath", f"hydra.searchpath=['{source_of(values[0])}']"))
        else:
            raise UserError(f"{flag} {escaped(values[0])}: no such folder")

    def _take_setting(self, word: str) -> None:
        match = _SETTING.fullmatch(word)
        assert match is not None, "what is no setting is a bare word"
        key, value = match["key"], match["value"]
        if is_text(key) and match["equals"] and match["prefix"] in ("", "+", "++"):
            if not value and key in ("input", "output"):
                raise UserError(f"{key}=: its value is empty; name a {'file' if key == 'input' else 'folder'}")
            self._settings.append((key, setting(f"{match['prefix']}{key}", value)))
        elif key in _WORD_LISTS.get(self._command, ()) and re.fullmatch(r"\w+(,\w+)+", value):
            self._settings.append((key, f"{key}=[{value}]"))
        elif key == "hydra.searchpath" and value.startswith("["):
            sources = ",".join(f"'{source_of(one.removeprefix('file://'))}'" for one in split_list(value))
            self._settings.append((key, f"{key}=[{sources}]"))
        else:
            self._settings.append((f"{match['prefix']}{key}", word))

    def _of_bare(self) -> Iterator[tuple[str, str]]:
        keys = _BARE.get(self._command, [])
        if self._bare and not keys:
            raise UserError(
                f"{escaped(self._bare[0])}: {self._command} takes settings only, as KEY=VALUE"
                f"; `{self._command} --help` lists them"
            )
        for number, key in enumerate(keys):
            taken = self._bare[number:] if number == len(keys) - 1 else self._bare[number : number + 1]
            if taken:
                yield key, self._of_names(key, taken)

    def _of_names(self, key: str, names: list[str]) -> str:
        if not is_text(key):
            return f"{key}={names[0]}"
        if len(names) == 1:
            return single(key, names[0])
        if not takes_list(key):
            raise UserError(f"{escaped(names[1])}: one word too many; {self._command} takes one {key}")
        return listed(key, names)


def _is_setting(command: str, key: str) -> bool:
    """Return whether a command has a setting or a group of settings of this name."""
    names = {one.key for one in settings_of(command)}
    return is_text(key) or (CONF / key).is_dir() or any(key == name or name.startswith(f"{key}.") for name in names)


def _device(name: str) -> list[str]:
    match name.partition(":"):
        case [("auto" | "cpu" | "mps") as kind, "", ""]:
            return [f"trainer.accelerator={kind}"]
        case ["cuda", _, number] if number.isascii() and number.isdigit():
            return ["trainer.accelerator=gpu", f"trainer.devices=[{number}]"]
        case ["cuda", "", ""]:
            return ["trainer.accelerator=gpu"]
    raise UserError(f"--device {escaped(name)}: give auto, cpu, cuda, cuda:N or mps")
