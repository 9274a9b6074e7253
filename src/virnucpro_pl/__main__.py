"""The command line: the first word picks the configuration, Hydra does the rest. Nothing else touches sys.argv."""

import logging
import os
import sys
import threading
import time
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from virnucpro_pl import __version__
from virnucpro_pl.cli.command_line import FLAGS_TEXT, complete_command, hydra_words
from virnucpro_pl.cli.preflight import check_inputs
from virnucpro_pl.cli.settings_check import check_settings, explain_refusal
from virnucpro_pl.configuration.hydra_config import (
    COMMANDS,
    CONF,
    log_name,
    process_of,
    register_resolvers,
    typed_settings,
)
from virnucpro_pl.configuration.text_settings import encoded, setting
from virnucpro_pl.errors import RunFailedError, UserError, did_you_mean, escaped
from virnucpro_pl.failures import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    can_continue,
    exit_status,
    needs_no_traceback,
    one_line,
)
from virnucpro_pl.files.output_files import FILES
from virnucpro_pl.host.home_folder import provide_caches
from virnucpro_pl.host.standard_output import check_standard_output, results_on_standard_output
from virnucpro_pl.host.standard_streams import prepare_streams
from virnucpro_pl.host.stopping import EXIT_TERMINATED, Terminated, terminable
from virnucpro_pl.runs.log_file import LogFile, check_log
from virnucpro_pl.runs.output_folder import check_output, claim_default_folder, make_output_folder

PROGRAM = "virnucpro-pl"
USAGE = f"""\
Which of these reads are viral? VirNucPro on PyTorch Lightning and Hydra.

Usage: python -m virnucpro_pl COMMAND [KEY=VALUE ...]

Commands: {", ".join(COMMANDS)}

  python -m virnucpro_pl predict                          the packaged sample with the packaged demo model
  python -m virnucpro_pl predict input=reads.fasta.gz output=results/ model=virnucpro_500
  python -m virnucpro_pl download output=genomes/         RefSeq genomes to train with, checked and resumable
  python -m virnucpro_pl prepare input=genomes/ output=dataset        labelled genomes to a dataset
  python -m virnucpro_pl train input=dataset output=head              a head on it; embed computes embeddings apart
  python -m virnucpro_pl test input=dataset model.head.weights=head/head.safetensors    how good it is
  python -m virnucpro_pl export model.head.weights=head/head.safetensors output=300_model.pth   for the published script
  python -m virnucpro_pl doctor model=virnucpro_500       can this machine predict with that model, and what is to mend
  python -m virnucpro_pl weights list                     what models need, and where it is; also fetch, verify
  python -m virnucpro_pl verify output=results/           are the results complete, and as they were written
  python -m virnucpro_pl report output=results/           what was found, as a page to read or figures for a paper
  python -m virnucpro_pl compare reference=A candidate=B  do two runs call alike
  python -m virnucpro_pl benchmark architecture=esm2_3b   how fast this machine is, with random weights
  python -m virnucpro_pl COMMAND --help                   what can be set
  python -m virnucpro_pl --version

The usual flags stand for settings:
{FLAGS_TEXT}
Words without a key are input files of predict, embed, prepare, train and test, folders of verify, report and compare.
Completion in the shell: eval "$(virnucpro-pl -sc install=bash)"
"""

log = logging.getLogger("virnucpro_pl")
_reported: Exception | None = None
"""The last error that a job has logged"""
_LEAVING_SECONDS = 3.0
_GO_ON = ("predict", "download", "embed", "train")  # commands that continue what was stopped
_LOGGED = ("predict", "embed", "prepare", "train", "test", "benchmark")  # commands that leave run.log
_PRINTING = {"--help", "-h", "--hydra-help", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc"}
"""Flags with which Hydra prints instead of running"""


@hydra.main(version_base="1.3", config_path=str(CONF))
def run(cfg: DictConfig) -> float | None:
    """Run the command the configuration is named after."""
    name = str(HydraConfig.get().job.config_name)
    try:
        with terminable():
            _prepare(cfg, name)
            return getattr(import_module(f"virnucpro_pl.commands.{name}"), name)(cfg)  # type: ignore[no-any-return]
    except Terminated:
        log.error("Terminated%s", _how_to_go_on(cfg))
        _leave(EXIT_TERMINATED)
    except (KeyboardInterrupt, SystemExit) as stop:
        # Lightning turns an interrupt into an exit of its own.
        if isinstance(stop, KeyboardInterrupt) or isinstance(stop.__context__, KeyboardInterrupt):
            log.error("Interrupted%s", _how_to_go_on(cfg))
            _leave(EXIT_INTERRUPTED)
        raise
    except Exception as error:
        _tell(error, cfg)
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            raise  # predict's sweeps list it and go on (cli/sweep.py)
        sys.exit(exit_status(error))


def _prepare(cfg: DictConfig, name: str) -> None:
    """Find mistakes before torch is imported and before anything is written, then open the output folder and its log.

    Raises:
        UserError: a setting, an input or the output folder is wrong.
    """
    check_settings(cfg, name)
    check_inputs(cfg, name)
    if name == "predict" and cfg.output == "-":
        check_standard_output()
    is_first = not process_of(HydraConfig.get().job.name, cfg)
    if name in FILES and is_first:
        if _is_unnamed(cfg) and HydraConfig.get().mode is RunMode.RUN:
            folder = claim_default_folder(cfg.paths.default_output)
            cfg.paths.default_output = encoded(folder)
            sys.argv.append(setting("paths.default_output", folder))  # for the processes that Lightning starts from it
        check_output(cfg, name)
    if name in _LOGGED:
        _open_log(Path(cfg.paths.output_dir), log_name(HydraConfig.get().job.name, cfg))


def _is_unnamed(cfg: DictConfig) -> bool:
    named = any(setting.startswith("paths.default_output=") for setting in typed_settings())
    return cfg.output in ("-", cfg.paths.default_output) and not named


def _open_log(folder: Path, name: str) -> None:
    """Write the log to a file in the output folder as well.

    Raises:
        UserError: the folder cannot be made, or another program has written the file.
    """
    check_log(folder / name)
    make_output_folder(folder)
    handler = LogFile(folder / name, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)


def _how_to_go_on(cfg: DictConfig) -> str:
    """Say how a run is continued; commands that begin anew say nothing.

    A folder that nobody named has the time in its name, and the next start would take another.
    """
    hydra = HydraConfig.get()
    default = OmegaConf.select(cfg, "paths.default_output")
    unnamed = default is not None and cfg.output == default
    if hydra.job.config_name not in _GO_ON or (unnamed and hydra.mode is not RunMode.RUN):
        return ""
    named = f" with output={Path(default).absolute()}" if unnamed else ""
    without = " without overwrite=true" if OmegaConf.select(cfg, "overwrite") else ""
    return f"; start the same command again{named}{without} to continue where it stopped"


def _tell(error: Exception, cfg: DictConfig) -> None:
    """Log what can be done about an error, or where it comes from."""
    global _reported
    _reported = error
    if needs_no_traceback(error):
        log.error("Error: %s%s", one_line(error), _how_to_go_on(cfg) if can_continue(error) else "")
    elif exit_status(error) == EXIT_FAILED:
        log.exception("The run failed%s", _how_to_go_on(cfg))
    elif "rank" not in process_of(HydraConfig.get().job.name, cfg):
        log.error("Error: %s", one_line(error))
    else:  # most often all ranks meet the same mistake, and one tells of it; the others keep it in their logs
        record = log.makeRecord(log.name, logging.ERROR, __file__, 0, "Error: %s", (one_line(error),), None)
        for handler in logging.getLogger().handlers:
            if isinstance(handler, LogFile):
                handler.handle(record)


def _leave(status: int) -> NoReturn:
    """Exit, also where a thread waits for input that may never come; all is saved and said."""
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread() and not thread.daemon]
    deadline = time.monotonic() + _LEAVING_SECONDS
    for thread in others:
        thread.join(max(0.0, deadline - time.monotonic()))
    if any(thread.is_alive() for thread in others):
        logging.shutdown()
        os._exit(status)
    sys.exit(status)


def _prepare_completion(what: str) -> bool:
    """Turn ``-sc install=bash`` and what the shell then asks into what Hydra answers; whether it is Hydra's turn."""
    command = COMMANDS[0]
    if what.startswith("query="):
        command, choices = complete_command(COMMANDS, PROGRAM)
        if choices or command not in COMMANDS:
            _print(*choices)
            return False
    sys.argv[:] = [PROGRAM, f"--config-name={command}", "-sc", what]
    return True


def main() -> None:
    """Entry point of ``virnucpro-pl`` and ``python -m virnucpro_pl``."""
    prepare_streams()
    match sys.argv[1:]:
        case [command, *words] if command in COMMANDS:
            try:
                # Valid again when Lightning starts further processes from sys.argv.
                sys.argv[1:] = [f"--config-name={command}", *hydra_words(command, words)]
            except UserError as error:
                _refuse(str(error))
        case [flag, *_] if flag.startswith("--config-name="):
            pass
        case ["--version" | "version"]:
            _print(__version__)
            return
        case ["-h" | "--help" | "help"]:
            _print(USAGE)
            return
        case []:
            sys.stderr.write(USAGE)
            sys.exit(EXIT_USAGE)
        case ["-sc" | "--shell_completion", what]:
            if not _prepare_completion(what):
                return
        case [word, *_]:
            _refuse(f"{escaped(word)}: no such command{did_you_mean(word, COMMANDS)}; one of {', '.join(COMMANDS)}")
    # The same bits from MKL whatever the number of threads, and so of processes; read when torch is imported.
    os.environ.setdefault("MKL_CBWR", "AVX2,STRICT")
    # As Triton has always compiled; 3.9 warns where it is not said.
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    provide_caches()
    register_resolvers()
    _check_working_folder()
    _run_hydra(sys.argv[1].removeprefix("--config-name="), sys.argv[2:])


def _check_working_folder() -> None:
    """Refuse a working folder that is gone, or whose name Hydra would read as an interpolation."""
    try:
        folder = os.getcwd()  # noqa: PTH109 - as Hydra takes it
    except OSError:
        _refuse("the current folder was removed; change to another one")
    if "${" in folder:
        _refuse(
            f"the current folder, {escaped(folder)}, has ${{ in its name, which Hydra cannot take; change to another"
        )


def _run_hydra(command: str, overrides: list[str]) -> None:
    """Run Hydra, and report in our own words what it refuses."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise; Hydra would print the error and advice on its own syntax
    try:
        with nullcontext() if _PRINTING.isdisjoint(overrides) else results_on_standard_output():
            run()
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted\n")
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        if error is _reported:  # by a job of a sweep
            sys.exit(exit_status(error))
        if isinstance(error, UserError | RunFailedError):
            _refuse(one_line(error), exit_status(error))
        if isinstance(error, (HydraException, OmegaConfBaseException, ValueError, OSError, yaml.YAMLError)):
            _refuse(explain_refusal(error, command, overrides))
        raise


def _print(*words: str) -> None:
    """Print to standard output, or exit with an error where that is not possible."""
    try:
        with results_on_standard_output():
            print(*words)
    except (UserError, RunFailedError) as error:
        _refuse(one_line(error), exit_status(error))


def _refuse(reason: str, status: int = EXIT_USAGE) -> NoReturn:
    sys.stderr.write(f"Error: {reason}\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
