"""Texts of a report: meanings of statuses, and the command that repeats the run."""

import os
import shlex
from typing import Any

from virnucpro_pl.runs.record_types import RunRecord

STATUS_MEANING = {
    "dna_only": "every reading frame holds a stop codon; called by the fallback head, on nucleotides alone",
    "no_orf": "every reading frame holds a stop codon, so this method cannot score it; rare in RNA viruses, common in"
    " animals and plants",
    "ambiguous_only": "no codon could be read, as with N alone",
    "not_nucleotides": "more than 0.1 % of its letters are no nucleotides, as in a protein or a damaged file",
    "too_short": "shorter than three bases",
    "empty": "a header without sequence",
}
CALL_MEANING = {
    "virus": "viral",
    "others": "not viral",
    "ambiguous": "undecided",
    "NA": "no call",
}


def repeat_command(run: RunRecord) -> str:
    """Return the shell command that repeats the run in its original directory."""
    return " ".join(map(_in_shell, run["command"]))


def _in_shell(word: str) -> str:
    r"""Quote a word for a shell, in the more readable way.

    >>> print(_in_shell("input=a b.fa"), _in_shell("input='a b.fa'"))
    'input=a b.fa' "input='a b.fa'"
    >>> print(_in_shell(os.fsdecode(b"input=it's \xff\n.fa")))
    $'input=it\'s \xff\x0a.fa'
    """
    if not word.isprintable():
        return _in_ansi_quotes(word)
    is_plain_in_double = "'" in word and not set(word) & set('"$`\\!')
    return f'"{word}"' if is_plain_in_double else shlex.quote(word)


def _in_ansi_quotes(word: str) -> str:
    """Quote a word with unprintable characters byte by byte, for bash and zsh."""
    text = "".join(
        char if char.isprintable() else "".join(f"\\x{byte:02x}" for byte in os.fsencode(char))
        for char in word.replace("\\", "\\\\").replace("'", "\\'")
    )
    return f"$'{text}'"


def head_quality(run: RunRecord) -> list[dict[str, Any]]:
    """Return the test metrics of the head by chunk length in nt; empty if it was not tested."""
    tested = (run["model"].get("head") or {}).get("tested") or {}
    return [
        {"length": int(length), **figures} for length, figures in sorted(tested.items(), key=lambda one: int(one[0]))
    ]


def trained_lengths(run: RunRecord) -> str:
    """Return the chunk lengths of the head's training in nt, as text; empty if unknown."""
    lengths = sorted(set((run["model"].get("head") or {}).get("chunk_lengths") or []))
    return " to ".join(map(str, lengths))
