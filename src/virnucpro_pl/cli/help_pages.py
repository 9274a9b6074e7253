"""Help pages of the program and of its commands, written from the comments in ``conf/``."""

import re
import textwrap

from omegaconf import OmegaConf

from virnucpro_pl.configuration.settings import Setting, choices_of, help_text_of, settings_of

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
    ("--device NAME", "trainer.devices", "Device: auto, cpu, cuda, cuda:N or mps."),
    ("--force", "overwrite", "Same as overwrite=true."),
    ("-q, --quiet", "", "Log warnings and errors only."),
    ("-m, --multirun", "", "Sweep: run once per combination of values separated by commas."),
    ("--config-dir FOLDER", "", "Read FOLDER/experiment/NAME.yaml for experiment=NAME."),
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
    sections = (
        "\n".join([f"{title}:", *(f"  {name:<10} {help_text_of(name).splitlines()[0]}" for name in names)])
        for title, names in _COMMANDS.items()
    )
    commands = "\n\n".join(sections)
    return f"""\
Find viral sequences with VirNucPro, on PyTorch Lightning and Hydra.

Usage: {PROGRAM} COMMAND [FILE ...] [-o FOLDER] [KEY=VALUE ...]

{commands}

Examples:
  {PROGRAM} predict
      Score the packaged sample with the demo model.
  {PROGRAM} predict reads.fastq.gz -o results model=virnucpro_500
      Score your reads with the published model.
  {PROGRAM} predict --help
      List the settings of a command.

Other flags: --version prints the version. `python -m virnucpro_pl` is the same program.
Shell completion: eval "$({PROGRAM} -sc install=bash)\""""


def settings_text(command: str) -> str:
    """Return the flags, choices and settings of a command, grouped and in two columns."""
    settings = settings_of(command)
    keys = {setting.key for setting in settings}
    sections = {"Flags": {flag: text for flag, key, text in _FLAGS if not key or key in keys}}
    sections |= {title: {} for title in _SECTIONS.values()}
    for choice in choices_of(command):
        suffix = " [default]" if choice.is_default else ""
        sections[_SECTIONS[choice.group]][f"{choice.group}={choice.name}"] = f"{choice.description}.{suffix}"
    for setting in settings:
        group = setting.key.partition(".")[0] if "." in setting.key else ""
        row = setting.key, f"{setting.description}{_default(setting)}"
        key, text = next((summary for start, summary in _SUMMARIES.items() if re.match(start, setting.key)), row)
        sections[_SECTIONS[group]][key] = text
    return "\n\n".join(
        "\n".join([f"{title}:", *(_row(*row) for row in rows.items())]) for title, rows in sections.items() if rows
    )


def _default(setting: Setting) -> str:
    """Return the default of a setting, or nothing if its description states it."""
    if setting.default == "???":
        return " [required]"
    is_described = "${" in setting.default or (setting.default == "null" and "null" not in setting.description)
    return "" if is_described else f" [default:{_NO_BREAK}{setting.default}]"


def _row(name: str, text: str) -> str:
    label, indent = f"  {name}  ".ljust(_COLUMN), " " * _COLUMN
    lines = textwrap.fill(text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    lines = lines.replace(_NO_BREAK, " ")
    return label + lines[_COLUMN:] if len(label) == _COLUMN else f"{label.rstrip()}\n{lines}"
