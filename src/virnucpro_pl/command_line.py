"""From what users type to what Hydra takes: file names without quotes, the usual short flags, shell completion.

Every flag stands for settings, one to one; ``--cfg job`` shows what they came to.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

_PLAIN = re.compile(r"[\w/.+%*@?|-]*", re.ASCII)  # what Hydra takes without quotes
_PLAIN_ITEM = re.compile(r"[\w/.-]+", re.ASCII)  # in a list
_SETTING = re.compile(r"[~+]{0,2}[A-Za-z_][\w./@-]*=|~[A-Za-z_]")
_GRAMMAR = set("(){}[],:= '\"\\$")
_VALUES = {"-i": "input", "--input": "input", "-o": "output", "--output": "output", "-t": "threads"} | {
    "--threads": "threads",
    "--device": "",
}
_HYDRA_VALUES = {
    *("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"),
    *("--info", "--shell_completion", "-sc", "--experimental-rerun"),
}
"""Hydra's own flags that are followed by a value"""
_SWITCHES = {
    "--force": ["overwrite=true"],
    "-q": ["hydra.job_logging.handlers.console.level=WARNING"],
    "--quiet": ["hydra.job_logging.handlers.console.level=WARNING"],
}
_FILES_OUT = {"export"}
"""Commands whose output is a file"""
_BARE = {
    "predict": ["input"], "embed": ["input"], "prepare": ["input"], "train": ["input"], "test": ["input"],
    "weights": ["action", "folder"], "verify": ["output"], "report": ["output"], "compare": ["reference", "candidate"],
}  # fmt: skip
"""What words without a key are for, by command; the last key takes all that are left"""
FLAGS_TEXT = """\
  -i FILE ..., -o FOLDER, -t N, --force, -q       input=, output=, threads=, overwrite=true, warnings only
  --device auto|cpu|cuda|cuda:N|mps               trainer.accelerator= and trainer.devices=
"""


class BadWordError(ValueError):
    """A flag without its value, or a value that cannot be; the message says which."""


def hydra_words(command: str, words: Sequence[str]) -> list[str]:
    """Translate what follows the command.

    Args:
        command: the first word.
        words: the others.

    Raises:
        BadWordError: a flag lacks its value or has a wrong one.

    >>> hydra_words("predict", ["-i", "a.fa", "-o", "out", "--device", "cuda:1", "results.tie=virus"])
    ['input=a.fa', 'output=out', 'trainer.accelerator=gpu', 'trainer.devices=[1]', 'results.tie=virus']
    """
    given = list(words)
    bare: list[str] = []
    translated: list[str] = []
    while given:
        word = given.pop(0)
        if word in _HYDRA_VALUES:
            translated += [word, *given[:1]]
            del given[:1]
        elif word in _SWITCHES:
            translated += _SWITCHES[word]
        elif word in _VALUES:
            values = list(_values(given, several=word in ("-i", "--input")))
            if not values:
                raise BadWordError(f"{word} needs a value")
            key = _VALUES[word]
            translated += [_assigned(key, values)] if key else _device(values[0])
        elif command in _BARE and _is_bare(word):
            bare.append(word)
        else:
            translated.append(_quoted(word, lists={"format"} if command == "report" else set()))
    settings = [*_of_bare(command, bare), *translated]
    for setting in settings:
        key, _, value = setting.partition("=")
        if key == "output" and command not in _FILES_OUT and Path(value).is_file():
            raise BadWordError(f"{setting} is a file; name a folder")  # Hydra would make it, and fail
    return settings


def _is_bare(word: str) -> bool:
    """Whether a word is neither a flag nor a setting; a file of that name is always one."""
    return word == "-" or (not word.startswith("-") and (not _SETTING.match(word) or Path(word).exists()))


def _values(given: list[str], several: bool) -> Iterator[str]:
    """Take the values of a flag off the words that follow it."""
    while given and _is_bare(given[0]):
        yield given.pop(0)
        if not several:
            return


def _of_bare(command: str, bare: list[str]) -> Iterator[str]:
    for number, key in enumerate(_BARE.get(command, [])):
        is_last = number == len(_BARE[command]) - 1
        if taken := bare[number:] if is_last else bare[number : number + 1]:
            yield _assigned(key, taken)


def _assigned(key: str, values: list[str]) -> str:
    if len(values) == 1:
        return f"{key}={values[0] if _PLAIN.fullmatch(values[0]) else _in_quotes(values[0])}"
    words = [value if _PLAIN_ITEM.fullmatch(value) else _in_quotes(value) for value in values]
    return f"{key}=[{','.join(words)}]"


def _device(name: str) -> list[str]:
    match name.partition(":"):
        case [("auto" | "cpu" | "mps") as kind, "", ""]:
            return [f"trainer.accelerator={kind}"]
        case ["cuda", _, number] if number.isdigit():
            return ["trainer.accelerator=gpu", f"trainer.devices=[{number}]"]
        case ["cuda", "", ""]:
            return ["trainer.accelerator=gpu"]
    raise BadWordError(f"--device {name}: give auto, cpu, cuda, cuda:N or mps")


def _quoted(argument: str, lists: set[str]) -> str:
    """Quote the value of ``key=path`` where Hydra's grammar would misread it, such as ``reads(1).fa``.

    What has grammar in it is quoted only if it is a path that exists; letters beyond ASCII are no grammar. Of the keys
    in ``lists``, ``a,b`` is a list, which Hydra would take for a sweep.
    """
    key, equals, value = argument.partition("=")
    if key in lists and re.fullmatch(r"\w+(,\w+)+", value):
        return f"{key}=[{value}]"
    has_grammar = set(value) & _GRAMMAR
    is_misread = has_grammar or not _PLAIN.fullmatch(value)
    is_setting = equals and not key.startswith("-")
    if is_setting and is_misread and (Path(value).exists() or not (has_grammar or value.isascii())):
        return f"{key}={_in_quotes(value)}"
    return argument


def _in_quotes(value: str) -> str:
    # In a quoted string a backslash escapes only where a quote follows.
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + found[2].replace("'", "\\'"), value)
    return f"'{escaped}'"


def complete_command(commands: Sequence[str], program: str) -> tuple[str, list[str]]:
    """Complete the command word of ``COMP_LINE``, as Hydra's shell completion asks for it.

    Where that word is there already, ``COMP_LINE`` is changed to what Hydra completes: the settings after it.

    Args:
        commands: all there are.
        program: how it is called.

    Returns:
        the command, empty where it is still to be completed, and the words it may be then.
    """
    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    if len(words) < 2 or (len(words) == 2 and not line.endswith(" ")):
        begun = words[1] if len(words) == 2 else ""
        return "", [command for command in commands if command.startswith(begun)]
    command = words[1]
    os.environ["COMP_LINE"] = f"{program} {line.split(command, 1)[1].lstrip()}"
    return command, []
