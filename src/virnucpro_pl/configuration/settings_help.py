"""The settings of a command and what they mean, as the comments in ``conf/`` say."""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_LINE = re.compile(r"(?P<indent> *)(?P<key>[\w-]+):(?: (?P<value>[^#]*))?(?: # .*)?$")
_PLUMBING = {"_target_", "_partial_", "key", "clock", "defaults"}
_WIRE = re.compile(r"\$\{[\w.]+\}[\w/]*|\{\}")
"""The value of a key that is another's, which is no setting unless a comment says what for"""
_NOT_SET_BY_USERS = {"hydra", "paths", "experiment"}
_WIDTH = 116


class Setting(NamedTuple):
    """One key that can be given on the command line."""

    key: str
    default: str
    meaning: str


def settings_text(conf: Path, command: str) -> str:
    """Every setting of a command with its default and meaning, for its ``--help``.

    Args:
        conf: folder of the configuration.
        command: whose.

    Returns:
        text with every ``$`` doubled, as Hydra substitutes in it.
    """
    lines = []
    for setting in settings_of(conf, command):
        lines.append(f"  {setting.key}={setting.default}")
        lines += textwrap.wrap(setting.meaning, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines).replace("$", "$$")


def settings_of(conf: Path, command: str) -> list[Setting]:
    """Read the settings of a command, those of its own file first, then those of its groups."""
    found: dict[str, Setting] = {}
    for setting in (*_read(conf / f"{command}.yaml", ""), *_of_groups(conf, conf / f"{command}.yaml", "")):
        before = found.get(setting.key)
        if before is None or (setting.meaning and not before.meaning):
            # What a file says of a key of one of its groups holds, whatever the group says.
            found[setting.key] = setting._replace(default=before.default if before else setting.default)
    # A part that is switched off has no settings.
    there = [one for key, one in found.items() if not any(key.startswith(f"{other}.") for other in found)]
    return sorted(there, key=lambda setting: "." in setting.key)


def _of_groups(conf: Path, file: Path, package: str) -> Iterator[Setting]:
    """Settings of the files that a file's list of defaults names, in the package it says, else their own."""
    entries = re.search(r"^defaults:\n((?:  - .*\n)+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    for entry in re.findall(r"  - (.*)", entries[1]) if entries else []:
        group, _, option = entry.split(" #")[0].strip().partition(": ")
        group, _, target = group.partition("@")
        if group.startswith("override") or group == "_self_" or group in _NOT_SET_BY_USERS:
            continue
        if not option:  # another file of the same group
            path, inner = file.with_name(f"{group}.yaml"), package
        else:
            base = file.parent if (file.parent / group).is_dir() else conf
            path = base / group / f"{option}.yaml"
            inner = package if target == "_here_" else target or ".".join(filter(None, [package, group]))
        yield from _read(path, inner)
        yield from _of_groups(conf, path, inner)


def _read(file: Path, package: str) -> Iterator[Setting]:
    """Settings of one file; a comment belongs to the key below it, and to all keys of a group below it."""
    comment: list[str] = []
    above: list[tuple[int, str, str]] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.strip().startswith("#"):
            comment.append(line.strip(" #"))
            continue
        match = _LINE.match(line)
        if not match:
            comment = []
            continue
        indent, key, value = len(match["indent"]), match["key"], (match["value"] or "").strip()
        above = [one for one in above if one[0] < indent]
        meaning, comment = " ".join(comment), []
        names = [name for _, name, _ in above]
        if {*names, key} & _PLUMBING or (not package and {*names[:1], key} & _NOT_SET_BY_USERS):
            above.append((indent, key, meaning))
        elif _WIRE.fullmatch(value) and not meaning:
            continue
        elif value:
            inherited = meaning or next((told for _, _, told in reversed(above) if told), "")
            yield Setting(".".join(filter(None, [package, *names, key])), value, inherited)
        else:
            above.append((indent, key, meaning))
