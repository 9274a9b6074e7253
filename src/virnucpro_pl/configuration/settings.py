"""Settings of each command, read from the YAML files in ``conf/``; the comment above a key describes it."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from virnucpro_pl.configuration.hydra_config import CONF

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is optional
_PLUMBING = {"_target_", "_partial_", "key", "clock", "defaults"}
_NOT_SET_BY_USERS = {"hydra", "paths", "experiment"}


class Setting(NamedTuple):
    """A key that can be given on the command line."""

    key: str
    default: str
    """As written in YAML"""
    description: str


class Choice(NamedTuple):
    """A file of a configuration group that can be chosen with ``group=name``."""

    group: str
    name: str
    description: str
    is_default: bool


@cache
def settings_of(command: str) -> tuple[Setting, ...]:
    """Return the settings of a command: those of its own file, then those of its groups."""
    found: dict[str, Setting] = {}
    for setting in _read_settings(CONF / f"{command}.yaml", ""):
        first = found.setdefault(setting.key, setting)
        if not first.description:
            found[setting.key] = first._replace(description=setting.description)
    # A part that is set to null has no settings.
    used = [one for key, one in found.items() if not any(key.startswith(f"{other}.") for other in found)]
    return tuple(sorted(used, key=lambda setting: "." in setting.key))


def choices_of(command: str) -> Iterator[Choice]:
    """Yield the described choices of the configuration groups in which a command uses such a choice or the default."""
    for group, option, package in _defaults(CONF / f"{command}.yaml"):
        files = sorted((CONF / group).glob("*.yaml")) if not package else ()
        descriptions = {file.stem: description for file in files if (description := _description(file))}
        if option == "default" or option in descriptions:
            yield from (Choice(group, name, text, name == option) for name, text in descriptions.items())


def help_text_of(command: str) -> str:
    """Return the first paragraphs of a command's ``--help``."""
    return str(_content(CONF / f"{command}.yaml")["hydra"]["help"]["header"])


def _description(file: Path) -> str:
    """Return the comment at the top of a file, which an empty line separates from its content."""
    header, separator, _ = _text(file).partition("\n\n")
    lines = header.splitlines()
    return " ".join(line.strip("# ") for line in lines) if separator and all(line[0] == "#" for line in lines) else ""


@cache
def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


@cache
def _content(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.load(_text(file), _Loader)
    return content


def _defaults(file: Path) -> Iterator[tuple[str, str, str]]:
    """Yield group, option and package of each entry in the defaults list of a file; a file's name has no option."""
    for entry in _content(file).get("defaults", ()):
        name, option = next(iter(entry.items())) if isinstance(entry, dict) else (entry, "")
        group, _, package = name.partition("@")
        if group != "_self_" and not group.startswith("override "):
            yield group, option, package


def _read_settings(file: Path, package: str) -> Iterator[Setting]:
    """Yield the settings of a file, then those of the files in its defaults list."""
    yield from _walk(yaml.compose(_text(file), _Loader), file, package, "")
    for group, option, target in _defaults(file):
        if group in _NOT_SET_BY_USERS:
            continue
        if option:
            folder = file.parent if (file.parent / group).is_dir() else CONF
            inner = package if target == "_here_" else target or _joined(package, group)
            yield from _read_settings(folder / group / f"{option}.yaml", inner)
        else:
            yield from _read_settings(file.with_name(f"{group}.yaml"), package)


def _walk(node: yaml.MappingNode, file: Path, package: str, inherited: str) -> Iterator[Setting]:
    """Yield the settings below a node; a group's comment describes the keys in it that have none."""
    text = _text(file)
    for name, value in node.value:
        if name.value in _PLUMBING or (not package and name.value in _NOT_SET_BY_USERS):
            continue
        key, own = _joined(package, name.value), _comment_above(text, name.start_mark.line)
        default = text[value.start_mark.index : value.end_mark.index]
        if value.id == "mapping" and value.value:
            yield from _walk(value, file, key, own or inherited)
        elif own or not (default == "{}" or default.startswith("${")):  # a link to another setting
            yield Setting(key, default, own or inherited)


def _comment_above(text: str, line: int) -> str:
    lines = text.splitlines()
    first = line
    while first and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    return " ".join(comment.strip("# ") for comment in lines[first:line])


def _joined(package: str, name: str) -> str:
    return f"{package}.{name}" if package else name
