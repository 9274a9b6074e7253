"""Commands in processes of their own: help, exit statuses, streams."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import virnucpro_pl
from support import Result


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_help_names_the_commands(cli: Callable[..., Result], arguments: list[str]) -> None:
    result = cli(*arguments)
    assert result.code == 0
    assert "predict" in result.out


def test_version_is_bare(cli: Callable[..., Result]) -> None:
    assert cli("--version") == Result(0, virnucpro_pl.__version__ + "\n", "")


@pytest.mark.parametrize("arguments", [[], ["predcit"], ["--no-such-flag"]])
def test_unknown_word_is_bad_usage(cli: Callable[..., Result], arguments: list[str]) -> None:
    result = cli(*arguments)
    assert result.code == 2
    assert "predict" in result.err
    assert not result.out


def test_misspelt_key_is_bad_usage(cli: Callable[..., Result], tmp_path: Path) -> None:
    result = cli("predict", f"output={tmp_path}", "data.token_bugdet=1")
    assert result.code == 2
    assert "token_bugdet" in result.err


def test_command_help_explains_keys_without_loading_torch(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "virnucpro_pl", "predict", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    for key in ("input", "output", "model", "data.token_budget", "data.chunk_length", "trainer.devices"):
        assert key in result.stdout
    assert " torch\n" not in result.stderr
    assert " lightning\n" not in result.stderr


def test_module_and_configuration_need_no_network_and_no_optional_package(
    mini_overrides: list[str], mini: Path, tmp_path: Path
) -> None:
    """R33, R34: no sockets beyond this machine, no triton, no flash-attn, and a long temporary folder (R36)."""
    blocker = tmp_path / "sitecustomize.py"
    blocker.write_text(
        "import socket, sys\n"
        "def refuse(*a, **k): raise OSError('the test allows no network')\n"
        "socket.getaddrinfo = refuse\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('triton', 'flash_attn'): raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    temporary = tmp_path / ("long" * 40)
    temporary.mkdir()
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "TMPDIR": str(temporary), "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-m", "virnucpro_pl", "predict", f"input={mini / 'inputs' / 'mini.fa'}"]
    command += [f"output={tmp_path / 'out'}", *mini_overrides]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    assert not result.stdout, "the log belongs to standard error"
    assert "Traceback" not in result.stderr
    assert (tmp_path / "out" / "sequences.tsv").exists()
    left = [path.name for path in temporary.iterdir()]
    assert not [name for name in left if not name.startswith("torchinductor_")], "temporary files stay behind"


def _restore_interrupts() -> None:
    """Handle SIGINT, which processes ignore that a shell runs in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_interrupted_run_gives_advice_to_resume(mini_overrides: list[str], mini: Path, tmp_path: Path) -> None:
    long = tmp_path / "long.fa"
    long.write_text((mini / "inputs" / "mini.fa").read_text() * 100)
    command = [sys.executable, "-m", "virnucpro_pl", "predict", f"output={tmp_path / 'out'}", *mini_overrides]
    command += [f"input={long}", "data.token_budget=1", "data.deduplicate=false", "callbacks.progress.seconds=0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=_restore_interrupts) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("Predicting"):
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
    assert process.returncode == 130
    assert "start the same command again to continue" in rest
    assert "Traceback" not in rest


@pytest.mark.parametrize("output", [[], ["output=-"]], ids=["dated", "standard-output"])
def test_failed_run_names_its_default_folder(output: list[str], tmp_path: Path) -> None:
    """Its name contains the time, so the same command alone would start in another folder."""
    crash = (
        "import virnucpro_pl.commands.predict as p, virnucpro_pl.__main__ as m\n"
        "def fail(*_): raise RuntimeError('power cut')\n"
        "p._Run.run_encoders = fail\n"
        "m.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", crash, "predict", "trainer.accelerator=cpu", *output],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    (folder,) = (tmp_path / "outputs" / "predict").iterdir()
    assert f"start the same command again with output={folder} to continue where it stopped" in done.stderr
