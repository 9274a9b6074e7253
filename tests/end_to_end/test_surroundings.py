"""F10, D1: closed streams, streams of another encoding, users without a home folder: the results are the same."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support import run_here
from virnucpro_pl.files.file_names import utf8_name
from virnucpro_pl.files.output_files import RESULT_FILES

READS = "".join(f">read_{number} é\n{'ATGGCTGCTAAAGCTGCTGCTGGT' * number}\n" for number in range(3, 8))
COMMAND = [sys.executable, "-m", "virnucpro_pl", "predict", "reads.fa", "-o", "results", "--device", "cpu"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "reads.fa").write_text(READS, encoding="utf-8")
    assert run_here("predict", f"input={folder / 'reads.fa'}", f"output={folder}", "trainer.accelerator=cpu") == 0
    return folder


@pytest.fixture
def run(undisturbed: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Run ``predict`` from a folder of its own and compare what it has left with an undisturbed run."""

    def predict(*before: str, redirected: str = "", **variables: str | None) -> subprocess.CompletedProcess[bytes]:
        shutil.copy(undisturbed / "reads.fa", tmp_path)
        environment = {**os.environ, **variables}
        result = subprocess.run(
            ["sh", "-c", f'exec "$@" {redirected}', "sh", *before, *COMMAND],
            cwd=tmp_path,
            env={name: value for name, value in environment.items() if value is not None},
            capture_output=True,
        )
        assert (result.returncode, b"Traceback" in result.stderr) == (0, False), result.stderr.decode()
        assert {path.name for path in tmp_path.iterdir()} == {"reads.fa", "results"}, "nothing is written elsewhere"
        for name in RESULT_FILES:
            assert_same_bytes(tmp_path / "results" / name, undisturbed / name)
        return result

    return predict


def assert_same_bytes(file: Path, other: Path) -> None:
    """But for the column ``file``, which has another path."""
    found, wanted = (path.read_bytes() for path in (file, other))
    if file.name == "sequences.tsv":
        found, wanted = (re.sub(rb"\t[^\t\n]*\n", b"\n", text) for text in (found, wanted))
    assert found == wanted, file.name


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_nothing(closed: str, run: Callable) -> None:
    """A file that got the number of a closed stream would hold what libraries print."""
    run(redirected=closed)


def test_what_a_stream_cannot_encode_is_escaped(run: Callable) -> None:
    told = run(PYTHONIOENCODING="ascii", LANG="C").stderr
    assert told.isascii()
    assert rb"choose another with model=\u2026" in told


def test_help_is_shown_in_any_encoding() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "LANG": "C"}
    for words in (["--help"], ["predict", "--help"], ["nothing"], ["weights", "list"]):
        result = subprocess.run([*COMMAND[:3], *words], env=environment, capture_output=True)
        assert b"Traceback" not in result.stderr
        assert result.stdout.isascii()


def test_a_home_that_cannot_be_written_is_not_needed(run: Callable) -> None:
    """Nor a temporary folder of the user's own."""
    told = run(HOME="/dev/null/home", TMPDIR="/dev/null/tmp", MPLCONFIGDIR=None, TRITON_CACHE_DIR=None).stderr
    assert b"atplotlib" not in told


@pytest.fixture
def nobody() -> list[str]:
    """Words that run a command as a user who is in no list of users."""
    words = ["unshare", "--user", "--map-user=12345"]
    try:
        subprocess.run([*words, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"unshare (util-linux 2.38 or newer) makes no user namespace here: {error}")
    return words


def test_a_user_without_home_and_name(nobody: list[str], run: Callable) -> None:
    run(*nobody, HOME=None, XDG_CACHE_HOME=None)


def test_weights_to_fetch_need_a_folder_that_is_named(nobody: list[str], tmp_path: Path) -> None:
    """Where there is no home, a cache called ~ would appear in the folder one is in."""
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "HF_HUB_OFFLINE")}
    command = [*nobody, *COMMAND[:4], "model=virnucpro_500", "-o", "results"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 2
    assert "no home folder to keep weights in: HOME is not set; set VIRNUCPRO_CACHE to a folder" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_a_name_that_is_not_utf8_is_read_under_another(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"x\xff")
    path.write_text("content")
    with utf8_name(path) as name:
        assert Path(name.encode().decode()).read_text() == "content"
    with utf8_name(tmp_path / "é") as name:
        assert name == str(tmp_path / "é")


def test_closed_standard_input_is_no_empty_input(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "virnucpro_pl", "predict", "-", "-o", "out", "trainer.accelerator=cpu"]
    closed = ["bash", "-c", '"$@" <&-', "bash", *command]
    result = subprocess.run(closed, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "standard input is closed" in result.stderr
    assert not (tmp_path / "out" / "sequences.tsv").exists()
