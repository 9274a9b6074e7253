"""What a user relies on when runs are killed: nothing is lost, doubled, or mixed with another run."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from support import MINI, PATIENCE, Result, model_overrides, run_here
from virnucpro_pl.files.folder_lock import LOCK_FILE, FolderLock
from virnucpro_pl.files.output_files import RESULT_FILES
from virnucpro_pl.runs import run_folder

READS = MINI / "inputs" / "mini.fa"
Predict = Callable[..., Result]


class PowerCut(RuntimeError):
    """Stands for whatever ends a run without warning."""


@pytest.fixture
def predict(cli: Callable[..., Result], tmp_path: Path) -> Predict:
    def run(*arguments: object, reads: Path = READS) -> Result:
        return cli(*command(tmp_path / "out", f"input={reads}", *arguments))

    return run


@pytest.fixture
def cut_short(monkeypatch: pytest.MonkeyPatch, predict: Predict) -> Callable[..., Result]:
    """Run until some batches are done, one part for each."""
    from virnucpro_pl.models.virnucpro import VirNucPro

    def run(*arguments: object, batches: int = 4) -> Result:
        step = VirNucPro.predict_step

        def fails_late(self, batch, batch_idx):
            if batch_idx == batches:
                raise PowerCut("power cut")
            return step(self, batch, batch_idx)

        with monkeypatch.context() as patch:
            patch.setattr(VirNucPro, "predict_step", fails_late)
            result = predict("callbacks.part_writer.max_orfs=1", *arguments)
        assert result.code == 1
        assert "power cut" in result.err
        return result

    return run


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    output = tmp_path_factory.mktemp("undisturbed")
    assert run_here(*command(output)) == 0
    return files(output)


def command(output: Path, *arguments: object) -> list[str]:
    words = [f"input={READS}", f"output={output}", "data.token_budget=300", "trainer.accelerator=cpu"]
    return ["predict", *words, *model_overrides(MINI), *map(str, arguments)]


def started(output: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a prediction in a process of its own."""
    words = [sys.executable, "-m", "virnucpro_pl", *command(output, *arguments)]
    return subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def files(output: Path) -> dict[str, bytes]:
    return {name: (output / name).read_bytes() for name in RESULT_FILES if (output / name).exists()}


def run_record(output: Path) -> dict:
    return json.loads((output / "run.json").read_text(encoding="utf-8"))


def parts(output: Path) -> list[Path]:
    return sorted(output.glob(".work/parts/*/part-*.parquet"))


def assert_refused(result: Result, *words: str) -> None:
    assert result.code == 2, result.err
    assert "Traceback" not in result.err
    (line,) = [line for line in result.err.splitlines() if line.startswith("Error: ")]
    for word in (*words, "overwrite=true"):
        assert word in line


# --- going on


def test_a_start_that_resumes_is_on_record(
    predict: Predict, cut_short: Predict, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    cut_short(batches=2)
    cut_short(batches=3)
    result = predict()
    assert result.code == 0
    run = run_record(tmp_path / "out")

    assert files(tmp_path / "out") == undisturbed
    assert f"Resuming: 5 of {run['starts'][0]['batches']} batches are finished" in result.err
    assert run["resumed"] == 2
    assert [start["batches_done_before"] for start in run["starts"]] == [0, 2, 5]
    assert run["figures"]["batches"] == run["starts"][0]["batches"] - 5
    assert {start["host"] for start in run["starts"]} == {os.uname().nodename}


def test_another_number_of_devices_goes_on(cut_short: Predict, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    """R24; here with one batch left, so that one of the devices has nothing to do."""
    cut_short(batches=13)
    process = started(tmp_path / "out", "trainer.devices=2")
    _, errors = process.communicate()

    assert process.returncode == 0, errors
    assert files(tmp_path / "out") == undisturbed
    starts = run_record(tmp_path / "out")["starts"]
    assert [start["devices"] for start in starts] == [1, 2]
    assert starts[1]["batches"] - starts[1]["batches_done_before"] == 1


def test_another_token_budget_goes_on_from_its_own_parts(predict: Predict, cut_short: Predict, tmp_path: Path) -> None:
    """After running out of memory a smaller budget is what the message asks for; parts of other batches do not mix."""
    cut_short()
    assert predict("data.token_budget=200").code == 0
    assert run_record(tmp_path / "out")["starts"][-1]["batches_done_before"] == 0


def test_settings_of_calls_may_change_before_there_are_results(
    predict: Predict, cut_short: Predict, tmp_path: Path
) -> None:
    cut_short()
    assert predict("results.min_viral_fraction=0.9").code == 0
    assert run_record(tmp_path / "out")["starts"][-1]["batches_done_before"] == 4


@pytest.mark.parametrize("damage", ["truncated", "foreign"])
def test_a_part_that_cannot_be_used_is_computed_again(
    predict: Predict, cut_short: Predict, undisturbed: dict[str, bytes], tmp_path: Path, damage: str
) -> None:
    """R23"""
    cut_short()
    first = parts(tmp_path / "out")[0]
    if damage == "truncated":
        os.truncate(first, first.stat().st_size - 1)
    else:
        table = pq.read_table(first, partitioning=None)
        metadata = {**table.schema.metadata, b"key": b"of another run"}
        pq.write_table(table.replace_schema_metadata(metadata), first)
    result = predict()

    assert result.code == 0, result.err
    assert result.err.count("set aside") == 1
    assert str(first) in result.err
    assert files(tmp_path / "out") == undisturbed
    assert run_record(tmp_path / "out")["starts"][-1]["batches_done_before"] == 3


def flip_a_bit(path: Path, place: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("file", ["records.arrow", "orfs.arrow", "by_length-distinct/rows.npy"])
def test_a_bit_that_flips_between_starts_changes_no_result(
    predict: Predict, cut_short: Predict, undisturbed: dict[str, bytes], tmp_path: Path, file: str
) -> None:
    """C1: the store is set aside and built again, and no score that may come of the damaged one is used."""
    cut_short()
    (store,) = (tmp_path / "out").glob(".work/store/*/")
    flip_a_bit(store / file, 0.7)
    result = predict()

    assert result.code == 0, result.err
    assert result.err.count("is set aside as") == 1
    assert str(store / file) in result.err
    assert files(tmp_path / "out") == undisturbed
    assert run_record(tmp_path / "out")["starts"][-1]["batches_done_before"] == 0


@pytest.mark.parametrize("file", ["records.arrow", "orfs.arrow", "chunks.arrow", "by_length-distinct/rows.npy"])
@pytest.mark.parametrize("damage", [flip_a_bit, lambda path, _: os.truncate(path, path.stat().st_size // 2)])
def test_damage_while_running_ends_the_run_in_one_line_and_the_next_start_repairs_it(
    predict: Predict,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    damage: Callable[[Path, float], None],
) -> None:
    """C1, C2: whether the damage goes unnoticed by who reads the file or not."""
    from virnucpro_pl.models.virnucpro import VirNucPro

    step = VirNucPro.predict_step

    def damages_early(self, batch, batch_idx):
        if batch_idx == 1:
            (store,) = (tmp_path / "out").glob(".work/store/*/")
            damage(store / file, 0.7)
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(VirNucPro, "predict_step", damages_early)
        result = predict("callbacks.part_writer.max_orfs=1")
    assert result.code == 1
    assert "Traceback" not in result.err
    (line,) = [line for line in result.err.splitlines() if line.startswith("Error: ")]
    assert file in line
    assert "start the same command again" in line
    assert not files(tmp_path / "out")

    assert predict().code == 0
    assert files(tmp_path / "out") == undisturbed


def test_overwriting_starts_over(predict: Predict, cut_short: Predict, tmp_path: Path) -> None:
    cut_short()
    assert predict("overwrite=true").code == 0
    assert [start["batches_done_before"] for start in run_record(tmp_path / "out")["starts"]] == [0]


# --- other runs


@pytest.fixture
def other_reads(tmp_path: Path) -> Path:
    """Another input of the same name."""
    path = tmp_path / "other" / READS.name
    path.parent.mkdir()
    path.write_text(READS.read_text(encoding="utf-8").replace("A", "C", 1), encoding="utf-8")
    return path


@pytest.mark.parametrize("finished", [False, True], ids=["unfinished", "finished"])
def test_another_input_is_refused(
    predict: Predict, cut_short: Predict, other_reads: Path, tmp_path: Path, finished: bool
) -> None:
    """R23: the published tool takes what it finds for this input's."""
    assert predict().code == 0 if finished else cut_short()
    before = files(tmp_path / "out"), parts(tmp_path / "out")

    assert_refused(predict(reads=other_reads), "input: other sequences")
    assert (files(tmp_path / "out"), parts(tmp_path / "out")) == before


@pytest.mark.parametrize("finished", [False, True], ids=["unfinished", "finished"])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["data.ambiguity=resolved"], "data.ambiguity=published there, resolved here"),
        (["trainer.precision=bf16-true"], "trainer.precision=32-true there, bf16-true here"),
        (["model.exact=true"], "model.exact=False there, True here"),
    ],
)
def test_other_settings_are_refused(
    predict: Predict, cut_short: Predict, change: list[str], told: str, finished: bool
) -> None:
    """R24"""
    assert predict().code == 0 if finished else cut_short()
    assert_refused(predict(*change), told)


@pytest.mark.parametrize("finished", [False, True], ids=["unfinished", "finished"])
def test_other_weights_are_refused(predict: Predict, cut_short: Predict, tmp_path: Path, finished: bool) -> None:
    """R24: told by content, not by name."""
    from safetensors.torch import load_file, save_file

    from virnucpro_pl.models.weights.checkpoints import read_file

    head = tmp_path / "300_model.safetensors"
    save_file(read_file(MINI / "models" / "mlp" / "300_model.pth").tensors, head, {"chunk_length": "300"})
    assert predict(f"model.head.weights={head}").code == 0 if finished else cut_short(f"model.head.weights={head}")
    tensors = load_file(head)
    name = next(iter(tensors))
    save_file({**tensors, name: tensors[name] + 1}, head, {"chunk_length": "300"})

    assert_refused(predict(f"model.head.weights={head}"), "model.head.weights: other weights")


def test_other_rules_for_calls_are_refused_once_there_are_results(predict: Predict) -> None:
    assert predict().code == 0
    assert_refused(predict("results.tie=ambiguous"), "results.tie=virus there, ambiguous here")


def test_a_folder_in_use_is_refused(predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "_PATIENCE", 0.0)
    with FolderLock(tmp_path / "out" / ".work" / LOCK_FILE) as other:
        other.share()
        result = predict()
    assert result.code == 2
    assert "another run is at work there" in result.err
    assert predict().code == 0


# --- finished runs


def test_a_finished_run_is_not_repeated(predict: Predict, tmp_path: Path) -> None:
    output = tmp_path / "out"
    first = predict()
    before = {path: path.stat().st_mtime_ns for path in output.iterdir() if path.name != "run.log"}
    again = predict("trainer.devices=1")

    assert again.code == 0, again.err
    assert "Finished already" in again.err
    assert {path: path.stat().st_mtime_ns for path in output.iterdir() if path.name != "run.log"} == before
    assert again.err.split("Stages")[1] == first.err.split("Stages")[1], "the results are told as the first time"


def test_what_a_run_killed_after_its_last_file_left_is_cleared(predict: Predict, tmp_path: Path) -> None:
    assert predict().code == 0
    left = tmp_path / "out" / ".work" / "parts"
    left.mkdir(parents=True)
    (left.parent / "lock").touch()  # which goes last
    assert predict().code == 0
    assert not left.parent.exists()


def test_finished_results_that_are_gone_are_told(predict: Predict, tmp_path: Path) -> None:
    assert predict().code == 0
    (tmp_path / "out" / "viral.fasta").unlink()
    assert_refused(predict(), "viral.fasta is missing")


@pytest.mark.parametrize("name", ["sequences.tsv", "kraken.tsv"])
def test_finished_results_that_were_changed_are_refused(name: str, predict: Predict, tmp_path: Path) -> None:
    assert predict("formats.kraken=true").code == 0
    file = tmp_path / "out" / name
    content = file.read_bytes()
    file.write_bytes(content.replace(b"0", b"1", 1))
    assert_refused(predict("formats.kraken=true"), f"{name} is missing or was changed")
    file.write_bytes(content)
    assert predict("formats.kraken=true").code == 0


# --- files of others


def test_files_added_to_an_unfinished_run_are_not_its_own(cut_short: Predict, predict: Predict, tmp_path: Path) -> None:
    cut_short()
    mine = tmp_path / "out" / "kraken.tsv"
    mine.write_text("mine")
    for words in (["formats.kraken=true"], ["formats.kraken=true", "overwrite=true"]):
        result = predict(*words)
        assert (result.code, "holds kraken.tsv" in result.err) == (2, True)
        assert mine.read_text() == "mine"
    assert predict("overwrite=true").code == 0
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("name", ["sequences.tsv", "kraken.tsv"])
def test_files_that_appear_during_a_run_are_not_replaced(
    name: str, predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, bytes]
) -> None:
    from virnucpro_pl.models.virnucpro import VirNucPro

    mine = tmp_path / "out" / name

    def writes(self):
        mine.write_text("mine")

    with monkeypatch.context() as patch:
        patch.setattr(VirNucPro, "on_predict_end", writes)
        result = predict("formats.kraken=true")
    assert result.code == 2
    assert f"{name} appeared there during the run" in result.err
    assert mine.read_text() == "mine"
    mine.unlink()
    again = predict("formats.kraken=true")
    assert again.code == 0, again.err
    assert files(tmp_path / "out") == undisturbed
    assert mine.is_file()


@pytest.mark.parametrize("last", ["sequences.tsv", "viral.fasta"])
def test_a_run_that_was_killed_while_results_appeared_replaces_them(
    last: str, predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, bytes]
) -> None:
    replace = Path.replace

    def fails(self, target):
        replace(self, target)
        if Path(target).name == last:
            raise PowerCut("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fails)
        assert predict().code == 1
    assert (tmp_path / "out" / last).exists()
    again = predict()
    assert again.code == 0, again.err
    assert files(tmp_path / "out") == undisturbed


@pytest.mark.parametrize("name", ["kraken.tsv", "viral_chunks.bed", "sequences.tsv"])
def test_files_of_a_failed_run_are_known_by_their_content(
    name: str, predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``kraken.tsv`` and the tables were written, ``viral_chunks.bed`` was not."""
    from virnucpro_pl.reporting import formats

    def fails(*_: object) -> None:
        raise PowerCut("power cut")

    words = ["formats.kraken=true", "formats.bed=true"]
    with monkeypatch.context() as patch:
        patch.setattr(formats, "write_bed", fails)
        assert predict(*words).code == 1
    mine = tmp_path / "out" / name
    assert mine.exists() == (name != "viral_chunks.bed")
    mine.write_text("mine")
    for more in (words, [*words, "overwrite=true"]):
        result = predict(*more)
        assert (result.code, f"holds {name}" in result.err) == (2, True)
    if name != "sequences.tsv":
        assert predict("overwrite=true").code == 0
    assert mine.read_text() == "mine"


def test_formats_of_a_failed_run_that_are_not_wanted_any_more_are_removed(
    predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from virnucpro_pl.reporting import formats

    def fails(*_: object) -> None:
        raise PowerCut("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(formats, "write_bed", fails)
        assert predict("formats.kraken=true", "formats.bed=true").code == 1
    assert (tmp_path / "out" / "kraken.tsv").exists()
    assert predict().code == 0
    assert not (tmp_path / "out" / "kraken.tsv").exists()


# --- signals


def wait_for(happens: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happens():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Words that make every batch take a while."""
    folder = tmp_path / "callbacks"
    folder.mkdir()
    (folder / "slow_batches.py").write_text(
        "import time\n"
        "from lightning.pytorch.callbacks import Callback\n"
        "class Slow(Callback):\n"
        "    def on_predict_batch_end(self, *_, **__):\n"
        "        time.sleep(0.5)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
    return ["+callbacks.slow._target_=slow_batches.Slow", "callbacks.part_writer.max_orfs=1"]


@pytest.mark.parametrize(("devices", "strategy"), [(1, "auto"), (2, "ddp"), (2, "ddp_spawn")])
def test_termination_keeps_what_is_done_and_exits_with_143(
    slow: list[str],
    predict: Predict,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    devices: int,
    strategy: str,
) -> None:
    """R22, R37"""
    output = tmp_path / "out"
    # ScoreShards of more than one batch, the last of which are written because the run is stopped.
    words = [*slow, "callbacks.part_writer.max_orfs=8", f"trainer.devices={devices}", f"trainer.strategy={strategy}"]
    with started(output, *words) as process:
        wait_for(lambda: len(parts(output)) >= devices, process)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143, errors
    assert "Terminated; start the same command again" in errors
    assert "Traceback" not in errors
    kept = len(parts(output))

    result = predict()
    assert result.code == 0, result.err
    assert files(output) == undisturbed
    assert run_record(output)["starts"][-1]["batches_done_before"] >= kept  # the last part may hold several


def test_silent_standard_input_holds_up_nobody(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "virnucpro_pl", "predict", "input=-", f"output={tmp_path / 'out'}"]
    command += [*model_overrides(MINI), "trainer.accelerator=cpu"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: [*(tmp_path / "out").glob(".work/store/.virnucpro-building-*")], process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE) == 143


def test_slurms_notice_is_a_termination(slow: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of ``sbatch --signal=USR1@60``."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with started(tmp_path / "out", *slow) as process:
        wait_for(lambda: parts(tmp_path / "out"), process)
        process.send_signal(signal.SIGUSR1)
        _, errors = process.communicate()
    assert process.returncode == 143, errors


@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn"])
def test_a_rank_that_dies_makes_the_run_fail_at_once(
    slow: list[str], predict: Predict, undisturbed: dict[str, bytes], tmp_path: Path, strategy: str
) -> None:
    output = tmp_path / "out"
    with started(output, *slow, "trainer.devices=2", f"trainer.strategy={strategy}") as process:
        wait_for(lambda: len(parts(output)) >= 4, process)
        os.kill(rank_one(process.pid), signal.SIGKILL)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, errors
    assert "Traceback" not in errors
    (line,) = [line for line in errors.splitlines() if line.startswith("Error: ")]
    assert "process" in line
    assert "was killed by" in line
    assert "start the same command again" in line

    result = predict()
    assert result.code == 0, result.err
    assert files(output) == undisturbed
    assert run_record(output)["starts"][-1]["batches_done_before"] >= 4


def rank_one(pid: int) -> int:
    """PID of the last process that a run has started for a device; Python's own helpers come before."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ranks = [int(child) for child in children if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes()]
    return ranks[-1]


# --- a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A disk whose size can be changed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted: run as root on Linux, outside of a container")

    def resize(size: str) -> Path:
        subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)
        return folder

    yield resize
    subprocess.run(["umount", "--lazy", folder], check=True)  # this process may still map a file there


@pytest.mark.parametrize("size", ["16k", "100k"])
def test_a_full_disk_is_told_in_one_line_and_the_run_goes_on_later(
    small_disk: Callable[[str], Path], predict: Predict, undisturbed: dict[str, bytes], size: str
) -> None:
    """In the log, the store, a part or the results, as the size has it."""
    output = small_disk(size) / "out"
    process = started(output, "callbacks.part_writer.max_orfs=1")
    _, errors = process.communicate()
    assert process.returncode == 1, errors
    assert "Traceback" not in errors
    assert "Logging error" not in errors
    (line,) = [line for line in errors.splitlines() if "no space left" in line.lower()]
    assert "start the same command again" in line
    assert not files(output)

    small_disk("16m")
    result = predict(f"output={output}")
    assert result.code == 0, result.err
    assert files(output) == undisturbed
