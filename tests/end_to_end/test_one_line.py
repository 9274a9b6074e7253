"""A user's mistake or a damaged folder is one line with a fix, and nothing of the user's is lost."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import Any

import pytest

from support import MINI, PATIENCE, Result, model_overrides
from virnucpro_pl.runs.output_folder import check_added

Cli = Callable[..., Result]
CPU = "trainer.accelerator=cpu"
READS = "".join(f">read_{number}\n{'ATGGCTGCAAAAGCTGGT' * 10}\n" for number in range(4))
KINDS: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a file": Path.touch,
    "a link to nothing": lambda path: path.symlink_to("/nowhere/at/all"),
    "a link that leads back to itself": lambda path: path.symlink_to(path.name),
    "a pipe or device": os.mkfifo,
}


def one_line(result: Result, code: int, *parts: str) -> None:
    assert result.code == code, result.err
    assert len(result.err.splitlines()) == 1, result.err
    for part in parts:
        assert part in result.err


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from support import run_here

    folder = tmp_path_factory.mktemp("finished")
    (folder / "reads.fa").write_bytes((MINI / "inputs" / "mini.fa").read_bytes())
    words = [f"input={folder / 'reads.fa'}", f"output={folder / 'out'}", *model_overrides(MINI), CPU]
    assert run_here("predict", *words) == 0
    return folder / "out"


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out"))


def again(folder: Path, finished: Path) -> list[str]:
    return ["predict", f"input={finished.parent / 'reads.fa'}", f"output={folder}", *model_overrides(MINI), CPU]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["lock", "identity.json", "starts.json", "digests.json", "scores", "parts", "store"])
def test_what_lies_in_the_work_folder_is_checked(name: str, kind: str, cli: Cli, tmp_path: Path) -> None:
    if kind == ("a folder" if name in ("parts", "store") else "a file"):
        return
    (tmp_path / "reads.fa").write_text(READS)
    work = tmp_path / "out" / ".work"
    work.mkdir(parents=True)
    for file in ("lock", "identity.json"):
        (work / file).write_text("{}")
    if name in ("lock", "identity.json"):
        (work / name).unlink()
    KINDS[kind](work / name)
    for force in ([], ["--force"]):
        result = cli("predict", tmp_path / "reads.fa", "-o", tmp_path / "out", CPU, *force)
        one_line(result, 2, f".work/{name} is {kind}", "move it away")
        assert os.path.lexists(work / name)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "a file"])
@pytest.mark.parametrize("name", ["report.html", "sequences.tsv", "run.json"])
def test_what_lies_among_results_is_checked(name: str, kind: str, cli: Cli, folder: Path, finished: Path) -> None:
    (folder / name).unlink()
    KINDS[kind](folder / name)
    one_line(cli(*again(folder, finished)), 2, f"{name} is {kind}, not a file")
    assert os.path.lexists(folder / name)
    if name == "report.html":
        one_line(cli("report", f"output={folder}"), 2, f"{name} is {kind}")
    if name == "run.json":
        for words in (["report"], ["verify"]):
            one_line(cli(*words, f"output={folder}"), 2, f"{name}: {kind}, not the record of a run")
        words = [f"reference={folder}", f"candidate={finished}", f"output={folder.parent / 'compared'}"]
        one_line(cli("compare", *words), 2, f"{name}: {kind}")


def test_pictures_need_a_folder(folder: Path) -> None:
    (folder / "figures").touch()
    with pytest.raises(ValueError, match="figures is a file, not a folder"):
        check_added(folder, ["figures/scores.png"])


@pytest.mark.parametrize("key", ["counts", "files", "identity", "figures", "warnings", "model", "command", "config"])
@pytest.mark.parametrize("value", [None, [], "x", 3, {}])
def test_a_damaged_run_record_is_one_line(cli: Cli, folder: Path, finished: Path, key: str, value: Any) -> None:
    if key in ("warnings", "command") and value == []:
        return
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**run, key: value}))
    for words in (["verify", f"output={folder}"], ["report", f"output={folder}"]):
        one_line(cli(*words), 2, "run.json")
    result = cli(*again(folder, finished))
    assert result.code in (0, 2)
    assert "Traceback" not in result.err
    if result.code == 2:
        assert result.err.count("Error: ") == 1
    result = cli("compare", f"reference={folder}", f"candidate={finished}", f"output={folder.parent / 'compared'}")
    if key == "identity" and value:
        one_line(result, 2, "damaged (identity)")
    else:
        assert result.code == 0, result.err


@pytest.mark.parametrize("command", ["embed", "train", "test"])
def test_verify_names_the_command_of_other_folders(cli: Cli, folder: Path, command: str) -> None:
    run = json.loads((folder / "run.json").read_text())
    run["command"][1] = command
    (folder / "run.json").write_text(json.dumps(run))
    for words in (["verify"], ["report"]):
        told = f"`{command}`; {words[0]} takes the output folder of a finished predict"
        one_line(cli(*words, f"output={folder}"), 2, told)


def test_verify_recognises_a_dataset(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("{}")
    one_line(cli("verify", f"output={tmp_path}"), 2, "`prepare`; verify takes")


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("data.store_dir=FILE", "is a file; name a folder"),
        ("data.store_dir=FILE/below", "is a file; name a folder"),
        ("data.embedding_cache=FILE", "is a file; name a folder"),
        ("paths.default_output=FILE", "is a file; name a folder"),
        ("trainer.precision=xyz", "give 32-true"),
        ("trainer.strategy=xyz", "give auto, ddp or ddp_spawn"),
        ("trainer.devices=0", "give a number of devices"),
        ("trainer.devices=-3", "give a number of devices"),
        ("trainer.devices=x", "give a number of devices"),
        ("trainer.devices=1.5", "give a number of devices"),
        ("trainer.devices=null", "give a number of devices"),
        ("trainer.devices=[]", "give a number of devices"),
        ("trainer.num_nodes=x", "whole number"),
        ("trainer.num_nodes=0", "give a whole number of machines"),
        ("+trainer.limit_predict_batches=0", "trainer.limit_predict_batches=0: give 1, or leave it out"),
        ("+trainer.fast_dev_run=true", "trainer.fast_dev_run=true: give false"),
        ("trainer.logger=true", "trainer.logger=true: give false"),
        ("threads=100000", "threads=100000: give a whole number from 1 to 4096"),
        ("data.num_workers=99999", "give a whole number from 0 to 1024"),
        ("data.token_budget=99999999999999999999", "too large; give a whole number of tokens"),
        ("data.chunk_length=99999999999999999999", "too large; give a whole number of bases"),
        ("+data.chunk_length=300", "there is such a setting already; leave out the +"),
        ("model.head.dropout=5", "give a share from 0 to below 1"),
    ],
)
def test_settings_of_trainer_and_folders(cli: Cli, tmp_path: Path, setting: str, told: str) -> None:
    (tmp_path / "FILE").touch()
    (tmp_path / "reads.fa").write_text(READS)
    setting = setting.replace("FILE", str(tmp_path / "FILE"))
    output = [] if setting.startswith("paths") else ["-o", tmp_path / "out"]
    one_line(cli("predict", tmp_path / "reads.fa", *output, setting), 2, told)
    assert not (tmp_path / "out").exists()


def shell(command: str) -> Result:
    program = f"{quote(sys.executable)} -m virnucpro_pl"
    done = subprocess.run(
        ["bash", "-c", command.replace("PROGRAM", program)], capture_output=True, text=True, timeout=PATIENCE
    )
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("words", ["predict output=-", "--version", "--help", "predict --cfg job", "weights list"])
def test_results_for_a_closed_standard_output(words: str, tmp_path: Path) -> None:
    one_line(shell(f"cd {quote(str(tmp_path))}; PROGRAM {words} >&- </dev/null"), 2, "standard output is closed")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", ["--version", "--help", "predict --cfg job", "weights list"])
def test_results_for_a_full_standard_output(words: str) -> None:
    one_line(shell(f"PROGRAM {words} >/dev/full"), 1, "standard output: no space left")


@pytest.mark.parametrize("stdin", ["echo '>a' |", "sleep 0 |", "<FILE"])
def test_the_sample_is_not_scored_in_place_of_piped_reads(stdin: str, tmp_path: Path) -> None:
    (tmp_path / "reads.fa").write_text(READS)
    before, after = ("", stdin) if stdin.startswith("<") else (stdin, "")
    after = after.replace("FILE", quote(str(tmp_path / "reads.fa")))
    result = shell(f"{before} PROGRAM predict output={quote(str(tmp_path / 'out'))} {after}")
    one_line(result, 2, "input: not given", "-i -", "</dev/null")
    assert not (tmp_path / "out").exists()


def test_the_sample_is_named_in_the_log(cli: Cli, tmp_path: Path) -> None:
    result = cli("predict", f"output={tmp_path / 'out'}", CPU)
    assert result.code == 0, result.err
    assert "NO INPUT WAS GIVEN" in result.err


def test_a_group_that_is_taken_away_is_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nformats: null\n")
    (tmp_path / "reads.fa").write_text(READS)
    result = cli("predict", "--config-dir", tmp_path, "experiment=mine", tmp_path / "reads.fa", "-o", tmp_path / "out")
    one_line(result, 2, "formats=null: a group of settings")


def test_a_record_without_chunks_is_drawn(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "reads.fa").write_text(">empty\n")
    assert cli("predict", tmp_path / "reads.fa", "-o", tmp_path / "out", CPU).code == 0
    result = cli("report", f"output={tmp_path / 'out'}", "format=svg", "records=[empty]")
    assert result.code == 0, result.err
    one_line(cli("report", f"output={tmp_path / 'out'}", "format=[]"), 2, "format=[]: choose from html")


def test_a_configuration_that_is_not_read_is_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "predict.yaml").write_text("input: reads.fa\n")
    result = cli("predict", "--config-dir", tmp_path, f"output={tmp_path / 'out'}")
    one_line(result, 2, "predict.yaml is not read", "experiment=NAME")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("- a\n- b\n", "mine.yaml: holds no settings; write one in each line, as NAME: VALUE"),
        ("# @package _global_\noutput: [1_1]\n", "output=['1_1']: give one text, not several"),
        ("a: [b\n", "mine.yaml: cannot be read as YAML"),
    ],
)
def test_a_mistake_in_a_configuration_file_is_one_line(content: str, told: str, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(content)
    (tmp_path / "reads.fa").write_text(READS)
    one_line(cli("predict", "--config-dir", tmp_path, "experiment=mine", tmp_path / "reads.fa"), 2, told)


@pytest.mark.parametrize("missing", ["NODE_RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_nodes_that_cannot_find_one_another_are_refused(
    missing: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(missing)
    (tmp_path / "reads.fa").write_text(READS)
    result = cli("predict", tmp_path / "reads.fa", "-o", tmp_path / "out", CPU, "trainer.num_nodes=2")
    one_line(result, 2, f"trainer.num_nodes=2: {missing} is not set", "docs/clusters.md")


def test_a_limit_of_file_sizes_is_told(tmp_path: Path) -> None:
    (tmp_path / "reads.fa").write_text(READS)
    words = f"predict input={quote(str(tmp_path / 'reads.fa'))} output={quote(str(tmp_path / 'out'))}"
    result = shell(f"ulimit -f 1000; PROGRAM {words}")
    assert result.code == 1
    assert "a limit of file sizes" in result.err.splitlines()[-1]
    assert "Traceback" not in result.err


def test_the_closing_line_names_a_report_of_this_run_only(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "reads.fa").write_text(READS)
    words = ["predict", tmp_path / "reads.fa", "-o", tmp_path / "out", CPU, "formats.report=false"]
    assert "(start with sequences.tsv;" in cli(*words).err
    (tmp_path / "out" / "report.html").write_text("of somebody else")
    assert "(start with sequences.tsv;" in cli(*words).err


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_file_that_may_not_be_written_is_one_line(
    number: int, folder: Path, finished: Path, cli: Cli, monkeypatch
) -> None:
    """As in a folder on a medium that is mounted read-only; root may write everywhere else."""
    original = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if Path(target).parent == folder:
            raise OSError(number, os.strerror(number), str(target))
        return original(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    for words in ([*again(folder, finished), "formats.bed=true"], ["report", f"output={folder}"]):
        result = cli(*words)
        assert result.code == 2
        assert "Traceback" not in result.err
        assert f"{os.strerror(number)}; make it writable, or give another folder" in result.err.splitlines()[-1]
