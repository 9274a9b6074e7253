"""E: no command replaces or removes what it reads, or what this program has not written."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support import Result
from virnucpro_pl.files.folder_lock import FolderLock
from virnucpro_pl.files.output_files import FILES, FORMAT_FILES, RESULT_FILES

Cli = Callable[..., Result]
CPU = "trainer.accelerator=cpu"
READS = "".join(f">read_{number}\n{'ATGGCTGCAAAAGCTGGT' * 10}\n" for number in range(4))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(result: Result, *parts: str) -> None:
    assert result.code == 2, result.err
    assert result.err.count("\n") == 1, result.err
    for part in parts:
        assert part in result.err


@pytest.mark.parametrize("name", ["viral.fasta", "sequences.tsv", "run.log", "report.html"])
def test_input_that_is_a_result_file_is_refused(name: str, cli: Cli, tmp_path: Path) -> None:
    Path(name).write_text(READS)
    before = content(tmp_path)
    refused(cli("predict", name, "-o", ".", CPU), name, "input=", "output=.")
    refused(cli("predict", name, "-o", ".", CPU, "--force"), name)
    assert content(tmp_path) == before


def test_input_by_another_name_is_found(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "viral.fasta").write_text(READS)
    Path("link.fa").symlink_to(out / "viral.fasta")
    os.link(out / "viral.fasta", "hard.fa")
    Path("again").symlink_to(out, target_is_directory=True)
    before = content(tmp_path)
    for words in (["link.fa", "-o", "out"], ["hard.fa", "-o", "out"], ["out/viral.fasta", "-o", "again"]):
        refused(cli("predict", *words, CPU), "viral.fasta there would be replaced")
    refused(cli("predict", "-i", "other.fa", "hard.fa", "-o", "out", CPU), "other.fa")
    assert content(tmp_path) == before


def test_reads_of_a_fastq_are_not_replaced_by_formats(cli: Cli, tmp_path: Path) -> None:
    quality = "I" * 180
    with gzip.open("viral.fastq.gz", "wt") as stream:
        stream.write("".join(f"@r{i}\n{'ATGGCTGCAAAAGCTGGT' * 10}\n+\n{quality}\n" for i in range(3)))
    before = content(tmp_path)
    refused(cli("predict", "viral.fastq.gz", "-o", ".", "formats.fastq=true", CPU), "viral.fastq.gz there")
    assert content(tmp_path) == before


def test_results_that_are_read_survive_force(cli: Cli, tmp_path: Path) -> None:
    Path("reads.fa").write_text(READS)
    assert cli("predict", "reads.fa", "-o", "r", CPU).code == 0
    before = content(tmp_path / "r")
    refused(cli("predict", "r/viral.fasta", "-o", "r", "--force", CPU), "viral.fasta there would be replaced")
    assert content(tmp_path / "r") == before
    assert cli("predict", "r/viral.fasta", "-o", "second", CPU).code == 0


def test_standard_input_may_be_a_file_that_would_be_replaced(cli: Cli, tmp_path: Path) -> None:
    Path("reads.fa").write_text(READS)
    assert cli("predict", "reads.fa", "-o", "r", CPU).code == 0
    Path("r/viral.fasta").write_text(READS)
    before = content(tmp_path / "r")
    words = [sys.executable, "-m", "virnucpro_pl", "predict", "-i", "-", "-o", "r", CPU, "--force"]
    with Path("r/viral.fasta").open("rb") as reads:
        result = subprocess.run(words, stdin=reads, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "viral.fasta there would be replaced" in result.stderr
    assert content(tmp_path / "r") == before


def test_figures_of_an_earlier_run_go_with_its_results(cli: Cli, tmp_path: Path) -> None:
    Path("reads.fa").write_text(READS)
    assert cli("predict", "reads.fa", "-o", "r", CPU).code == 0
    assert cli("report", "-o", "r", "format=png,svg").code == 0
    Path("r/figures/mine.png").write_text("mine")
    assert cli("predict", "reads.fa", "-o", "r", CPU, "--force").code == 0
    assert [path.name for path in Path("r/figures").iterdir()] == ["mine.png"]
    Path("r/figures/mine.png").unlink()
    assert cli("report", "-o", "r", "format=png").code == 0
    assert cli("predict", "reads.fa", "-o", "r", CPU, "--force").code == 0
    assert not Path("r/figures").exists()


@pytest.mark.parametrize("name", sorted({*RESULT_FILES, "report.html", "run.json", "run.log", ".work"}))
def test_what_others_wrote_is_kept(name: str, cli: Cli, tmp_path: Path) -> None:
    Path("reads.fa").write_text(READS)
    out = tmp_path / "out"
    out.mkdir()
    if name == ".work":
        (out / name).mkdir()
        (out / name / "notes.txt").write_text("mine")
    else:
        (out / name).write_text("mine")
    before = content(out)
    for force in ([], ["--force"]):
        refused(cli("predict", "reads.fa", "-o", "out", CPU, *force), name)
        assert content(out) == before


@pytest.mark.parametrize("name", sorted(set(FORMAT_FILES) - {"report", "fastq"}))
def test_formats_that_are_added_later_replace_nothing(name: str, cli: Cli, tmp_path: Path) -> None:
    Path("reads.fa").write_text(READS)
    assert cli("predict", "reads.fa", "-o", "out", CPU).code == 0
    for file in FORMAT_FILES[name]:
        (tmp_path / "out" / file).write_text("mine")
    before = content(tmp_path / "out")
    refused(cli("predict", "reads.fa", "-o", "out", CPU, f"formats.{name}=true"), FORMAT_FILES[name][0])
    assert content(tmp_path / "out") == before


def test_other_files_in_the_folder_disturb_nobody(cli: Cli, tmp_path: Path) -> None:
    Path("reads.fa").write_text(READS)
    Path("notes.txt").write_text("mine")
    for force in ([], ["--force"], []):
        assert cli("predict", "reads.fa", "-o", ".", CPU, *force).code == 0
    assert Path("notes.txt").read_text() == "mine"
    assert Path("reads.fa").read_text() == READS
    assert cli("verify", ".").code == 0


def test_a_folder_of_another_command_is_refused_even_with_force(cli: Cli, tmp_path: Path) -> None:
    Path("reads.fa").write_text(READS)
    assert cli("predict", "reads.fa", "-o", "out", CPU).code == 0
    assert cli("compare", "out", "out", "output=same").code == 0
    before = content(tmp_path)
    refused(cli("predict", "reads.fa", "-o", "same", CPU, "--force"), "holds the results of `compare`")
    shutil.copytree("out", "copy")
    before = content(tmp_path)
    refused(cli("compare", "out", "out", "output=copy"), "holds the results of `predict`")
    refused(cli("benchmark", "output=out", "overwrite=true", CPU), "holds the results of `predict`")
    assert content(tmp_path) == before


@pytest.mark.parametrize("name", FILES["compare"])
def test_compare_replaces_its_own_files_only(name: str, cli: Cli, tmp_path: Path) -> None:
    Path("reads.fa").write_text(READS)
    assert cli("predict", "reads.fa", "-o", "out", CPU).code == 0
    assert cli("compare", "out", "out", "output=same").code == 0
    assert cli("compare", "out", "out", "output=same", "mode=consensus").code == 0
    assert json.loads(Path("same/compare.json").read_text())["mode"] == "consensus"
    Path("other").mkdir()
    (Path("other") / name).write_text("mine")
    refused(cli("compare", "out", "out", "output=other"), name)
    assert (Path("other") / name).read_text() == "mine"
    shutil.copytree("out", "tables")
    Path("tables/mismatches.tsv").write_bytes(Path("tables/prediction_results.txt").read_bytes())
    refused(cli("compare", "tables/mismatches.tsv", "out", "output=tables"), "tables")


def test_report_replaces_its_own_files_only(cli: Cli, tmp_path: Path) -> None:
    Path("reads.fa").write_text(READS)
    assert cli("predict", "reads.fa", "-o", "out", CPU, "formats.report=false").code == 0
    Path("out/report.html").write_text("mine")
    Path("out/figures").mkdir()
    Path("out/figures/scores.svg").write_text("mine")
    refused(cli("report", "out"), "report.html")
    refused(cli("report", "out", "format=svg"), "figures/scores.svg")
    Path("out/report.html").unlink()
    Path("out/figures/scores.svg").unlink()
    assert cli("report", "out", "format=html,svg").code == 0
    assert cli("report", "out", "format=html,svg").code == 0
    assert cli("verify", "out").code == 0


def test_heads_and_models_are_never_their_own_output(cli: Cli, tmp_path: Path, mini: Path) -> None:
    head = mini / "models" / "mlp" / "300_model.pth"
    shutil.copy(head, "head.pth")
    before = content(tmp_path)
    words = ["export", "model.head.weights=head.pth", "output=head.pth", "overwrite=true"]
    refused(cli(*words), "head.pth there would be replaced")
    Path("link.pth").symlink_to("head.pth")
    refused(cli("export", "model.head.weights=head.pth", "output=link.pth", "overwrite=true"), "would be replaced")
    Path("link.pth").unlink()
    refused(cli("export", "model.head.weights=head.pth", "output=."), "output=.")
    assert content(tmp_path) == before


def test_embedding_caches_lie_outside_work_folders(cli: Cli, tmp_path: Path) -> None:
    Path("reads.fa").write_text(READS)
    words = ["predict", "reads.fa", "-o", "out", CPU, "data.embedding_cache=out/.work/cache"]
    refused(cli(*words), "data.embedding_cache=out/.work/cache")
    Path("cache").mkdir()
    Path("cache/weights.json").write_text('["mine"]')
    assert cli("predict", "reads.fa", "-o", "out", CPU, "data.embedding_cache=cache").code == 0
    assert Path("cache/weights.json").read_text() == '["mine"]'


def test_a_sweep_replaces_its_own_files_only(cli: Cli, tmp_path: Path) -> None:
    Path("reads.fa").write_text(READS)
    for name in ("sweep.tsv", "multirun.yaml"):
        out = tmp_path / name.partition(".")[0]
        out.mkdir()
        (out / name).write_text("mine")
        result = cli("predict", "-m", "reads.fa", "-o", out, CPU, "data.token_budget=64,128")
        assert result.code == 2
        assert f"holds {name}" in result.err
        assert content(out) == {name: b"mine"}
    Path("compare").mkdir()
    Path("compare/multirun.yaml").write_text("mine")
    words = ["reference=one.tsv", "candidate=two.tsv", "output=compare", "mode=record,consensus"]
    result = cli("compare", "-m", *words)
    assert (result.code, "holds multirun.yaml" in result.err) == (2, True)
    assert content(Path("compare")) == {"multirun.yaml": b"mine"}
    Path("rows/.sweep").mkdir(parents=True)
    Path("rows/.sweep/notes").write_text("mine")
    result = cli("predict", "-m", "reads.fa", "-o", "rows", CPU, "data.token_budget=64,128")
    assert (result.code, "holds .sweep" in result.err) == (2, True)
    assert content(Path("rows")) == {".sweep/notes": b"mine"}


def test_prepare_removes_nothing_of_others(cli: Cli, tmp_path: Path) -> None:
    for label in ("virus", "others"):
        Path(f"genomes/{label}").mkdir(parents=True)
        for number in range(3):
            genome = "ATGGCTGCAAAAGCTGGT" * (100 + number)
            Path(f"genomes/{label}/{label}{number}.fa").write_text(f">{label}{number}\n{genome}\n")
    assert cli("prepare", "genomes", "output=dataset").code == 0
    Path("dataset/notes.txt").write_text("mine")
    before = content(tmp_path)
    result = cli("prepare", "genomes", "output=dataset", "overwrite=true")
    assert result.code == 2
    assert "notes.txt" in result.err
    Path("dataset/run.log").write_bytes(before["dataset/run.log"])
    assert content(tmp_path) == before
    Path("dataset/notes.txt").unlink()
    assert cli("prepare", "genomes", "output=dataset", "overwrite=true").code == 0
    Path("mine").mkdir()
    Path("mine/run.log").write_text("2026-11-30 10:00:00,123 INFO pipeline: mine\n")
    refused(cli("prepare", "genomes", "output=mine"), "output=mine: holds run.log, which another program has written")
    assert content(Path("mine")) == {"run.log": b"2026-11-30 10:00:00,123 INFO pipeline: mine\n"}


@pytest.mark.parametrize("sweep", [[], ["-m"]])
def test_hydra_writes_no_configuration_over_files_of_the_user(sweep: list[str], cli: Cli, tmp_path: Path) -> None:
    Path("reads.fa").write_text(READS)
    Path("mine").mkdir()
    Path("mine/config.yaml").write_text("mine")
    Path("conf/experiment").mkdir(parents=True)
    Path("conf/experiment/x.yaml").write_text("# @package _global_\nhydra:\n  output_subdir: mine\n")
    before = content(tmp_path)
    words = ["predict", *sweep, "reads.fa", "-o", "out", CPU]
    for more in (["hydra.output_subdir=mine"], ["--config-dir", "conf", "experiment=x"]):
        refused(
            cli(*words, *more), "hydra.output_subdir=mine: run.json holds the configuration; leave this setting out"
        )
        assert content(tmp_path) == before


@pytest.mark.parametrize(
    "key",
    ["paths.work_dir", "paths.output_dir", "data.input", "callbacks.ranks.folder", "callbacks.part_writer.folder"],
)
def test_settings_of_the_program_itself_name_no_folder_of_others(key: str, cli: Cli, tmp_path: Path) -> None:
    Path("reads.fa").write_text(READS)
    Path("mine/below").mkdir(parents=True)
    Path("mine/below/precious").write_text("mine")
    before = content(tmp_path)
    refused(cli("predict", "reads.fa", "-o", "out", CPU, f"{key}=mine"), f"{key}=mine: the program sets it itself")
    Path("conf/experiment").mkdir(parents=True)
    parent, _, last = key.rpartition(".")
    nested = parent.replace(".", ": {") + f": {{{last}: mine" + "}" * (key.count("."))
    Path("conf/experiment/x.yaml").write_text(f"# @package _global_\n{nested}\n")
    result = cli("predict", "reads.fa", "-o", "out", CPU, "--config-dir", "conf", "experiment=x")
    assert result.code == 2, result.err
    shutil.rmtree("conf")
    assert content(tmp_path) == before


def test_force_removes_what_was_recorded_and_nothing_else(cli: Cli, tmp_path: Path) -> None:
    Path("reads.fa").write_text(READS)
    Path("out").mkdir()
    for name in ("kraken.tsv", "nonviral.fasta", "viral_1.fastq.gz"):
        Path("out", name).write_text("mine")
    before = content(tmp_path / "out")
    for _ in range(2):
        assert cli("predict", "reads.fa", "-o", "out", CPU, "--force").code == 0
        assert content(tmp_path / "out").items() >= before.items()


@pytest.mark.parametrize("name", ["out/nonviral.fasta", "out/vir*.fasta"])
def test_force_keeps_what_is_read_by_pattern_or_as_an_earlier_format(name: str, cli: Cli, tmp_path: Path) -> None:
    Path("reads.fa").write_text(READS)
    assert cli("predict", "reads.fa", "-o", "out", CPU, "formats.nonviral=true").code == 0
    before = content(tmp_path)
    refused(cli("predict", name, "-o", "out", CPU, "--force"), "would be replaced")
    assert content(tmp_path) == before


def test_a_work_folder_is_not_ours_by_the_names_in_it(cli: Cli, tmp_path: Path) -> None:
    Path("reads.fa").write_text(READS)
    Path("out/.work/results").mkdir(parents=True)
    Path("out/.work/results/notes.txt").write_text("mine")
    Path("store/building-mine").mkdir(parents=True)
    Path("store/building-mine/precious").write_text("mine")
    os.utime("store/building-mine/precious", (0, 0))
    os.utime("store/building-mine", (0, 0))
    before = content(tmp_path)
    refused(cli("predict", "reads.fa", "-o", "out", CPU), ".work")
    assert content(tmp_path) == before
    assert cli("predict", "reads.fa", "-o", "other", CPU, "data.store_dir=store").code == 0
    assert Path("store/building-mine/precious").read_text() == "mine"


@pytest.mark.parametrize("name", ["manifest.json", "labels.parquet", "orfs.arrow", "building-site/photo"])
def test_prepare_takes_nothing_for_its_own_by_name(name: str, cli: Cli, tmp_path: Path) -> None:
    for label in ("virus", "others"):
        Path(f"genomes/{label}").mkdir(parents=True)
        Path(f"genomes/{label}/{label}.fa").write_text(f">{label}\n{'ATGGCTGCAAAAGCTGGT' * 100}\n")
    target = Path("dataset") / name
    target.parent.mkdir(parents=True)
    target.write_text("mine")
    assert cli("prepare", "genomes", "output=dataset").code == 2
    assert cli("prepare", "genomes", "output=dataset", "overwrite=true").code == 2
    assert target.read_text() == "mine"
    before = content(tmp_path / "genomes")
    refused(cli("prepare", "genomes", "output=genomes/virus"), "folders of their own")
    assert content(tmp_path / "genomes") == before, "not even a log"


def test_nothing_is_made_of_tables_that_were_changed(cli: Cli, tmp_path: Path) -> None:
    Path("reads.fa").write_text(READS)
    assert cli("predict", "reads.fa", "-o", "out", CPU).code == 0
    table = Path("out/sequences.tsv")
    table.write_text(table.read_text().replace("others", "sretho"))
    before = content(tmp_path / "out")
    for words, code in ((["predict", "reads.fa", "-o", "out", CPU, "formats.kraken=true"], 2), (["report", "out"], 1)):
        result = cli(*words)
        assert result.code == code
        assert re.search("sequences.tsv:? (is )?missing or (was )?changed since", result.err)
        assert "Traceback" not in result.err
    after = content(tmp_path / "out")
    assert {**after, "run.log": b""} == {**before, "run.log": b""}


def test_folders_nobody_named_are_unique(tmp_path: Path) -> None:
    """E3: runs that start in the same second."""
    script = (
        "import sys\n"
        "from virnucpro_pl.runs.output_folder import claim_default_folder\n"
        "sys.stdin.read()\n"
        "print(claim_default_folder('outputs/predict/2026-11-30_12-00-00'))\n"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    found = {run.communicate("")[0].strip() for run in runs}
    assert [run.returncode for run in runs] == [0] * 4
    assert len(found) == 4
    assert all(Path(folder).is_dir() for folder in found)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere; run the tests as another user")
def test_a_folder_that_may_not_be_written_is_refused_at_once(cli: Cli, tmp_path: Path) -> None:
    Path("reads.fa").write_text(READS)
    Path("closed").mkdir(mode=0o555)
    refused(cli("predict", "reads.fa", "-o", "closed/out", CPU), "closed may not be written")


@pytest.mark.parametrize("words", [["benchmark"], ["embed", "reads.fa"], ["predict", "reads.fa"]], ids=lambda w: w[0])
@pytest.mark.parametrize("force", [[], ["--force"]], ids=["", "force"])
def test_an_unfinished_run_of_another_command_is_kept(
    words: list[str], force: list[str], cli: Cli, tmp_path: Path
) -> None:
    """`benchmark` in the folder of an unfinished `predict` removed its scores."""
    Path("reads.fa").write_text(READS)
    shard = Path("out/.work/parts/0123456789abcdef/part-000000000.parquet")
    shard.parent.mkdir(parents=True)
    shard.write_text("scores")
    Path("out/.work/lock").touch()
    other = "embed" if words[0] == "predict" else "predict"
    Path("out/.work/identity.json").write_text(json.dumps({"command": other, "files": {}}))
    before = content(tmp_path)
    refused(cli(*words, "-o", "out", CPU, *force), f"unfinished run of `{other}`")
    assert content(tmp_path) == before


def test_benchmark_leaves_a_folder_in_which_a_run_is_at_work(cli: Cli, tmp_path: Path) -> None:
    with FolderLock(tmp_path / "out" / ".work" / "lock") as lock:
        assert lock.take_alone(0.0)
        assert lock.share()
        refused(cli("benchmark", "-o", "out", CPU), "another run is at work there")


@pytest.mark.parametrize("name", ["figures/plot.png", "ranks/notes", "results/thesis.txt", "store/mine", "parts/x.txt"])
@pytest.mark.parametrize("is_locked", [True, False])
def test_files_of_others_within_a_work_folder_are_kept(name: str, is_locked: bool, cli: Cli, tmp_path: Path) -> None:
    Path("reads.fa").write_text(READS)
    file = Path("out/.work") / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    if is_locked:
        Path("out/.work/lock").touch()
    before = content(tmp_path)
    for force in ([], ["--force"]):
        refused(cli("predict", "reads.fa", "-o", "out", CPU, *force), ".work")
        assert content(tmp_path) == before


def test_force_keeps_the_results_until_the_input_is_read(cli: Cli, tmp_path: Path) -> None:
    Path("reads.fa").write_text(READS)
    Path("bad.fa").write_text("<html>")
    assert cli("predict", "reads.fa", "-o", "out", CPU).code == 0
    before = content(tmp_path / "out")
    result = cli("predict", "bad.fa", "-o", "out", CPU, "--force")
    assert result.code == 2
    assert "neither FASTA nor FASTQ" in result.err
    after = content(tmp_path / "out")
    assert {name: after[name] for name in before if name != "run.log"} == {
        name: value for name, value in before.items() if name != "run.log"
    }
    assert cli("verify", "out").code == 0
    Path("other.fa").write_text(READS + READS.replace("read_", "more_"))
    assert cli("predict", "other.fa", "-o", "out", CPU, "--force").code == 0
    assert json.loads(Path("out/run.json").read_text())["counts"]["records"] == 8


def test_report_writes_nothing_that_the_run_does_not_know(cli: Cli, tmp_path: Path) -> None:
    Path("reads.fa").write_text(READS)
    assert cli("predict", "reads.fa", "-o", "out", CPU, "formats.report=false").code == 0
    before = content(tmp_path / "out")
    refused(cli("report", "-o", "out", "format=[html,png]", "records=nosuch"), "nosuch")
    for value in ("null", "1", "[]", "[null]"):
        refused(cli("report", "-o", "out", f"format={value}"), "choose from html, png, svg, pdf")
    assert content(tmp_path / "out") == before
    assert cli("report", "-o", "out", "format=[html,png]").code == 0
    assert cli("verify", "out").code == 0
