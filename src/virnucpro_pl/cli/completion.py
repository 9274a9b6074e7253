"""Completion of commands and settings in the shell."""

import os
import sys

from virnucpro_pl.cli.help_pages import PROGRAM
from virnucpro_pl.configuration.hydra_config import COMMANDS


def complete_command(request: str) -> list[str] | None:
    """Complete the command word, or rewrite ``sys.argv`` so that Hydra completes the settings after it.

    Hydra reads the line to complete from ``COMP_LINE``, which is rewritten as well.

    Args:
        request: the value of Hydra's flag ``-sc``, such as ``install=bash`` or ``query=bash``.

    Returns:
        the possible commands, or None if Hydra completes the line.
    """
    command = COMMANDS[0]
    if request.startswith("query="):
        line = os.environ.get("COMP_LINE", "")
        words = line.split()
        if len(words) < 2 or (len(words) == 2 and not line.endswith(" ")):
            begun = words[1] if len(words) == 2 else ""
            return [name for name in COMMANDS if name.startswith(begun)]
        command = words[1]
        if command not in COMMANDS:
            return []
        os.environ["COMP_LINE"] = f"{PROGRAM} {line.split(command, 1)[1].lstrip()}"
    sys.argv[:] = [PROGRAM, f"--config-name={command}", "-sc", request]
    return None
