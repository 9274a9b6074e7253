"""Entry point of the program: the first word selects a configuration, which Hydra composes and runs."""

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
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from virnucpro_pl import __version__
from virnucpro_pl.cli.command_line import hydra_words
from virnucpro_pl.cli.completion import complete_command
from virnucpro_pl.cli.help_pages import overview, register_help
from virnucpro_pl.cli.preflight import check_inputs
from virnucpro_pl.cli.refusals import HYDRA_ERRORS, explain_refusal
from virnucpro_pl.cli.settings_check import check_settings
from virnucpro_pl.configuration.hydra_config import (
    COMMANDS,
    CONF,
    process_of,
    register_resolvers,
    typed_settings,
)
from virnucpro_pl.configuration.text_settings import encoded, typed_override
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
from virnucpro_pl.files.output_files import FILES, LOG_FILE
from virnucpro_pl.host.home_folder import provide_caches
from virnucpro_pl.host.standard_output import check_standard_output, results_on_standard_output
from virnucpro_pl.host.standard_streams import prepare_streams
from virnucpro_pl.host.stopping import EXIT_TERMINATED, Terminated, terminable
from virnucpro_pl.runs.log_file import LogFile, check_log
from virnucpro_pl.runs.output_folder import check_output, claim_default_folder, make_output_folder

log = logging.getLogger("virnucpro_pl")
_reported: Exception | None = None
"""Last error that a job has logged"""
_EXIT_PATIENCE = 3.0
"""Seconds to wait for other threads before the process exits"""
_RESUMABLE = ("predict", "download", "embed", "train")
_LOGGED = ("predict", "embed", "prepare", "train", "test", "benchmark")
"""Commands that write ``run.log``"""
_PRINTING_FLAGS = {"--help", "-h", "--hydra-help", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc"}
"""Flags with which Hydra prints instead of running"""


@hydra.main(version_base="1.3", config_path=str(CONF))
def run(cfg: DictConfig) -> float | None:
    """Run the command that the configuration is named after."""
    name = str(HydraConfig.get().job.config_name)
    try:
        with terminable():
            _prepare(cfg, name)
            return getattr(import_module(f"virnucpro_pl.commands.{name}"), name)(cfg)  # type: ignore[no-any-return]
    except Terminated:
        log.error("Terminated%s", _resume_advice(cfg))
        _leave(EXIT_TERMINATED)
    except (KeyboardInterrupt, SystemExit) as stop:
        # Lightning turns an interrupt into an exit of its own.
        if isinstance(stop, KeyboardInterrupt) or isinstance(stop.__context__, KeyboardInterrupt):
            log.error("Interrupted%s", _resume_advice(cfg))
            _leave(EXIT_INTERRUPTED)
        raise
    except Exception as error:
        _log_error(error, cfg)
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            raise  # cli/sweep.py lists the failed job and continues
        sys.exit(exit_status(error))


def _prepare(cfg: DictConfig, name: str) -> None:
    """Check settings, inputs and output folder before torch is imported, then open the log file.

    Raises:
        UserError: a setting, an input or the output folder is wrong.
    """
    check_settings(cfg, name)
    check_inputs(cfg, name)
    if name == "predict" and cfg.output == "-":
        check_standard_output()
    process = process_of(HydraConfig.get().job.name, cfg)
    if name in FILES and not process:
        if HydraConfig.get().mode is RunMode.RUN and _needs_default_folder(cfg):
            folder = claim_default_folder(cfg.paths.default_output)
            cfg.paths.default_output = encoded(folder)
            # Lightning starts further processes with sys.argv.
            sys.argv.append(typed_override("paths.default_output", folder))
        check_output(cfg, name)
    if name in _LOGGED:
        file = Path(cfg.paths.output_dir) / (f"run.{process}.log" if process else LOG_FILE)
        check_log(file)
        make_output_folder(file.parent)
        handler = LogFile(file, delay=True)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(handler)


def _needs_default_folder(cfg: DictConfig) -> bool:
    is_claimed = any(typed.startswith("paths.default_output=") for typed in typed_settings())
    return cfg.output in ("-", cfg.paths.default_output) and not is_claimed


def _resume_advice(cfg: DictConfig) -> str:
    """Return how to resume a run, or nothing for commands that start again.

    The name of a default folder contains the time, so the advice names it.
    """
    hydra = HydraConfig.get()
    default = OmegaConf.select(cfg, "paths.default_output")
    has_default_folder = default is not None and cfg.output in (default, "-")
    if hydra.job.config_name not in _RESUMABLE or (has_default_folder and hydra.mode is not RunMode.RUN):
        return ""
    output = f" with output={Path(default).absolute()}" if has_default_folder else ""
    without = " without overwrite=true" if OmegaConf.select(cfg, "overwrite") else ""
    return f"; start the same command again{output}{without} to continue where it stopped"


def _log_error(error: Exception, cfg: DictConfig) -> None:
    """Log an error: one line for mistakes and known causes, with a traceback for others."""
    global _reported
    _reported = error
    if needs_no_traceback(error):
        log.error("Error: %s%s", one_line(error), _resume_advice(cfg) if can_continue(error) else "")
    elif exit_status(error) == EXIT_FAILED:
        log.exception("The run failed%s", _resume_advice(cfg))
    elif "rank" not in process_of(HydraConfig.get().job.name, cfg):
        log.error("Error: %s", one_line(error))
    else:  # all ranks find the same mistake, so only the first prints it; the others write to their log files
        record = log.makeRecord(log.name, logging.ERROR, __file__, 0, "Error: %s", (one_line(error),), None)
        for handler in logging.getLogger().handlers:
            if isinstance(handler, LogFile):
                handler.handle(record)


def _leave(status: int) -> NoReturn:
    """Exit, even if a thread waits for input that never comes. Everything is saved at this point."""
    threads = [
        thread for thread in threading.enumerate() if thread is not threading.main_thread() and not thread.daemon
    ]
    deadline = time.monotonic() + _EXIT_PATIENCE
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if any(thread.is_alive() for thread in threads):
        logging.shutdown()
        os._exit(status)
    sys.exit(status)


def main() -> None:
    """Run the command line; entry point of ``virnucpro-pl`` and ``python -m virnucpro_pl``."""
    prepare_streams()
    match sys.argv[1:]:
        case [command, *words] if command in COMMANDS:
            try:
                # Lightning starts further processes with this sys.argv.
                sys.argv[1:] = [f"--config-name={command}", *hydra_words(command, words)]
            except UserError as error:
                _refuse(str(error))
        case [flag, *_] if flag.startswith("--config-name="):
            pass
        case ["--version" | "version"]:
            _print(__version__)
            return
        case ["-h" | "--help" | "help"]:
            _print(overview())
            return
        case []:
            sys.stderr.write(f"{overview()}\n")
            sys.exit(EXIT_USAGE)
        case ["-sc" | "--shell_completion", request]:
            commands = complete_command(request)
            if commands is not None:
                _print(*commands)
                return
        case [word, *_]:
            _refuse(f"{escaped(word)}: no such command{did_you_mean(word, COMMANDS)}; one of {', '.join(COMMANDS)}")
    # MKL gives the same bits for any number of threads, and so of processes. Read when torch is imported.
    os.environ.setdefault("MKL_CBWR", "AVX2,STRICT")
    # The default of Triton; since 3.9 it warns if this is not set.
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    provide_caches()
    register_resolvers()
    register_help()
    _check_working_folder()
    _run_hydra(sys.argv[1].removeprefix("--config-name="), sys.argv[2:])


def _check_working_folder() -> None:
    """Refuse a current folder that was removed, or with a name that Hydra would interpolate."""
    try:
        folder = os.getcwd()  # noqa: PTH109 - as Hydra gets it
    except OSError:
        _refuse("the current folder was removed; change to another one")
    if "${" in folder:
        _refuse(
            f"the current folder, {escaped(folder)}, has ${{ in its name, which Hydra cannot take; change to another"
        )


def _run_hydra(command: str, overrides: list[str]) -> None:
    """Run Hydra, and explain in one line the overrides that it refuses."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise errors instead of printing them with advice on Hydra's syntax
    try:
        with nullcontext() if _PRINTING_FLAGS.isdisjoint(overrides) else results_on_standard_output():
            run()
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted\n")
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        if error is _reported:  # by a job of a sweep
            sys.exit(exit_status(error))
        if isinstance(error, UserError | RunFailedError):
            _refuse(one_line(error), exit_status(error))
        if isinstance(error, HYDRA_ERRORS):
            _refuse(explain_refusal(error, command, overrides))
        raise


def _print(*words: str) -> None:
    """Print to standard output, or exit with an error if it cannot be written."""
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
