"""Help pages of the program and of its commands, written from the comments in ``conf/``."""

import re
import textwrap
from collections.abc import Iterable, Iterator

from omegaconf import OmegaConf

from virnucpro_pl.configuration.settings import choices_of, help_text_of, settings_of

PROGRAM = "virnucpro-pl"
_WIDTH = 100
_COLUMN = 32
_NO_BREAK = "\N{NO-BREAK SPACE}"
_COMMANDS = {
    "Find viral sequences": ("predict", "report", "verify", "compare"),
    "Train and test heads": ("download", "prepare", "embed", "train", "test", "export"),
    "Models and machine": ("weights", "doctor", "benchmark"),
}
_SECTIONS = {
    "": "Input, output and run",
    "architecture": "Model size",
    "model": "Model",
    "data": "Sequences, chunks and batches",
    "files": "Files",
    "split": "Splits",
    "threshold": "Threshold",
    "results": "Calls",
    "formats": "Additional output files",
    "trainer": "Devices and precision (Lightning trainer)",
    "fine_tuning": "Fine-tuning",
    "optimizer": "Optimizer",
    "scheduler": "Learning rate schedule",
    "patience": "Timeouts and retries",
    "callbacks": "Callbacks",
    "logger": "Training logs",
    "embedding": "Computation of embeddings",
}
"""Title of the settings that begin with a group's name, in the order of the page"""
_SUMMARIES = {
    r"embedding\.trainer\.": ("embedding.trainer.*", "As trainer.* in `virnucpro-pl embed --help`."),
    r"embedding\.callbacks\.": ("embedding.callbacks.*", "As callbacks.* in `virnucpro-pl embed --help`."),
    r"model\.\w+\.pinned\.": ("model.*.pinned.*", "Addresses and properties of the published weights."),
}
"""Rows that stand for all settings that match a pattern"""
_FLAGS = (
    ("-i, --input FILE ...", "input", "Same as input=."),
    ("-o, --output PATH", "output", "Same as output=."),
    ("-t, --threads N", "threads", "Same as threads=."),
    (
        "--device NAME",
        "trainer.devices",
        "auto, cpu, cuda, cuda:N or mps. Sets trainer.accelerator and trainer.devices.",
    ),
    ("--force", "overwrite", "Same as overwrite=true."),
    ("-q, --quiet", "", "Log warnings and errors only."),
    ("-m, --multirun", "", "Sweep: run once per combination of values that are separated by commas."),
    ("--config-dir FOLDER", "", "Read your own YAML files: experiment=NAME reads FOLDER/experiment/NAME.yaml."),
    ("--cfg job", "", "Print the configuration and exit."),
    ("--", "", "Read all further words as file names."),
)
"""Flags, the setting that a command needs to have them, and their descriptions"""


def register_help() -> None:
    """Register the resolver by which ``conf/hydra/default.yaml`` includes the settings of a command."""
    # Hydra substitutes $NAME in help pages.
    OmegaConf.register_new_resolver("settings", lambda command: settings_text(command).replace("$", "$$"), replace=True)


def overview() -> str:
    """Return the help page of the program."""
    lines = [
        "Find viral sequences with VirNucPro, on PyTorch Lightning and Hydra.",
        "",
        "Usage: virnucpro-pl COMMAND [FILE ...] [-o FOLDER] [KEY=VALUE ...]",
    ]
    for title, commands in _COMMANDS.items():
        lines += ["", f"{title}:"]
        lines += [f"  {command:<10} {help_text_of(command).partition(chr(10))[0]}" for command in commands]
    return "\n".join([*lines, "", _EXAMPLES])


_EXAMPLES = """\
Examples:
  virnucpro-pl predict
      Score the packaged sample with the demo model.
  virnucpro-pl predict reads.fastq.gz -o results model=virnucpro_500
      Score your reads with the published model.
  virnucpro-pl predict --help
      List the settings of a command.

Other flags: --version prints the version. `python -m virnucpro_pl` is the same program.
Shell completion: eval "$(virnucpro-pl -sc install=bash)\""""


def settings_text(command: str) -> str:
    """Return the flags and settings of a command, grouped and in two columns."""
    settings = settings_of(command)
    keys = {setting.key for setting in settings}
    blocks = [_block("Flags", ((flag, text) for flag, key, text in _FLAGS if not key or key in keys))]
    rows: dict[str, list[tuple[str, str]]] = {group: [] for group in _SECTIONS}
    for choice in choices_of(command):
        suffix = " [default]" if choice.is_default else ""
        rows[choice.group].append((f"{choice.group}={choice.name}", f"{choice.description}.{suffix}"))
    for setting in settings:
        group = setting.key.partition(".")[0] if "." in setting.key else ""
        row = next(
            (summary for pattern, summary in _SUMMARIES.items() if re.match(pattern, setting.key)),
            (setting.key, f"{setting.description}{_default(setting.default)}"),
        )
        if row not in rows[group]:
            rows[group].append(row)
    blocks += [_block(_SECTIONS[group], entries) for group, entries in rows.items() if entries]
    return "\n\n".join(blocks)


def _default(written: str) -> str:
    if "${" in written:  # its description states it
        return ""
    return " [required]" if written == "???" else f" [default:{_NO_BREAK}{written}]"


def _block(title: str, rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join([f"{title}:", *(line for row in rows for line in _lines(*row))])


def _lines(name: str, text: str) -> Iterator[str]:
    indent = " " * _COLUMN
    wrapped = textwrap.wrap(text, _WIDTH - _COLUMN, break_long_words=False, break_on_hyphens=False)
    first, *others = (line.replace(_NO_BREAK, " ") for line in wrapped)
    if len(name) > _COLUMN - 4:
        yield f"  {name}"
        yield f"{indent}{first}"
    else:
        yield f"  {name:<{_COLUMN - 2}}{first}"
    yield from (f"{indent}{line}" for line in others)
