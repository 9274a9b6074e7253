"""``verify``: a folder is as it was written, or it is said what is not."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from support import MINI, Result, model_overrides
from virnucpro_pl.files.digests import sha256_of
from virnucpro_pl.files.output_files import RESULT_FILES

Cli = Callable[..., Result]


@pytest.fixture
def folder(cli: Cli, tmp_path: Path) -> Path:
    reads = tmp_path / "reads.fa"
    reads.write_bytes((MINI / "inputs" / "mini.fa").read_bytes())
    words = [f"input={reads}", f"output={tmp_path / 'out'}", *model_overrides(MINI), "trainer.accelerator=cpu"]
    result = cli("predict", *words)
    assert result.code == 0, result.err
    return tmp_path / "out"


def everything_in(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_folder_as_it_was_written_is_well(cli: Cli, folder: Path) -> None:
    before = everything_in(folder.parent)
    result = cli("verify", f"output={folder}")

    assert result.code == 0, result.err
    for name in RESULT_FILES:
        assert f"{name} " in result.err
    assert "reads.fa: unchanged" in result.err
    assert "Verified: 6 files, 18 records, 23 chunks, 56 ORFs" in result.err
    assert everything_in(folder.parent) == before, "verifying writes nothing"


def change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize("name", RESULT_FILES)
@pytest.mark.parametrize(
    ("damage", "told"), [(Path.unlink, "is missing"), (cut_short, "bytes"), (change_a_byte, "was changed")]
)
def test_damage_is_told_by_file(cli: Cli, folder: Path, name: str, damage: Callable[[Path], None], told: str) -> None:
    damage(folder / name)
    result = cli("verify", f"output={folder}")

    assert result.code == 1
    assert "Traceback" not in result.err
    (line,) = [line for line in result.err.splitlines() if line.startswith(f"  {name} ")]
    assert told in line
    assert f"Error: {folder}: {name} not as written" in result.err


def drop_last_line(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))


def drop_last_row(path: Path) -> None:
    pq.write_table(pq.read_table(path).slice(0, 22), path)


def drop_last_record(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.read_bytes().rindex(b">")])


def change_a_status(path: Path) -> None:
    path.write_text(path.read_text().replace("no_orf", "called", 1))


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("prediction_results.txt", drop_last_line),
        ("prediction_results_highestscore.csv", drop_last_line),
        ("sequences.tsv", drop_last_line),
        ("sequences.tsv", change_a_status),
        ("predictions.parquet", drop_last_row),
        ("viral.fasta", drop_last_record),
    ],
)
def test_files_that_do_not_account_for_everything_are_told(
    cli: Cli, folder: Path, name: str, loss: Callable[[Path], None]
) -> None:
    """As if the program itself had lost a row: checksums agree, counts do not."""
    loss(folder / name)
    run = json.loads((folder / "run.json").read_text())
    run["files"][name] = {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)[name]}
    (folder / "run.json").write_text(json.dumps(run))
    result = cli("verify", f"output={folder}")

    assert result.code == 1
    (line,) = [line for line in result.err.splitlines() if line.startswith(f"  {name} ")]
    assert "run.json counts" in line or "status is called, but no_orf by predictions.parquet" in line


def test_a_changed_input_is_told_and_no_mistake(cli: Cli, folder: Path) -> None:
    (folder.parent / "reads.fa").write_text(">other\nACGT\n")
    result = cli("verify", f"output={folder}")
    assert result.code == 0
    assert "reads.fa: changed since it was read" in result.err
    (folder.parent / "reads.fa").unlink()
    assert "reads.fa: not available" in cli("verify", f"output={folder}").err


def test_what_is_no_finished_run_is_told(cli: Cli, tmp_path: Path) -> None:
    assert "give the folder to verify" in cli("verify").err
    nothing = cli("verify", f"output={tmp_path}")
    assert (nothing.code, "no results here" in nothing.err) == (2, True)
    (tmp_path / ".work").mkdir()
    unfinished = cli("verify", f"output={tmp_path}")
    assert (unfinished.code, "not finished" in unfinished.err) == (1, True)
    (tmp_path / "run.json").write_text("{ half a reco")
    damaged = cli("verify", f"output={tmp_path}")
    assert (damaged.code, "damaged" in damaged.err) == (2, True)
    (tmp_path / "run.json").write_text('{"measurements": []}')
    assert "version is missing; it is damaged or of another version" in cli("verify", f"output={tmp_path}").err


def test_verifying_needs_no_torch(folder: Path) -> None:
    code = (
        "import sys; from virnucpro_pl.__main__ import main\n"
        f"sys.argv[1:] = ['verify', 'output={folder}']\n"
        "main(); print({'torch', 'lightning'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout == "set()\n", result.stderr
