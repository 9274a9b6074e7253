"""The Python interface gives what the command line gives, and keeps its model."""

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from Bio.Seq import Seq
from Bio.SeqRecord import SeqRecord
from hydra import compose, initialize_config_dir

import virnucpro_pl
from support import MINI, Result, model_overrides
from virnucpro_pl import predict
from virnucpro_pl.api import Predictor
from virnucpro_pl.errors import UserError

CPU = {"trainer.accelerator": "cpu"}
READS = {"first": "ATGGCTGCTAAAGCTGCTGCTGGT" * 6, "second": "CAGGATCCTGAAGAAGGTCTT" * 5, "stops": "TAATTAATTAA" * 9}


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    overrides = [override.partition("=") for override in model_overrides(MINI)[1:]]
    return Predictor("virnucpro_300", {**CPU, **{key: value for key, _, value in overrides}})


def test_tables_are_those_of_the_command_line(
    predictor: Predictor, cli: Callable[..., Result], mini_overrides: list[str], tmp_path: Path
) -> None:
    reads = MINI / "inputs" / "mini.fa"
    assert cli("predict", f"input={reads}", f"output={tmp_path}", *mini_overrides, "trainer.accelerator=cpu").code == 0
    records = predictor.predict(reads)
    header, *rows = (line.split("\t") for line in (tmp_path / "sequences.tsv").read_text().splitlines())
    assert records.column_names == header
    for row, told in zip(records.to_pylist(), rows, strict=True):
        for value, text in zip(row.values(), told, strict=True):
            assert text == "NA" if value is None else value == type(value)(text)
    chunks = predictor.predict(reads, level="chunk")
    assert chunks.equals(pq.read_table(tmp_path / "predictions.parquet"))
    orfs = predictor.predict(str(reads), level="orf")
    assert orfs.column_names == ["Sequence_ID", "Prediction", "score1", "score2"]
    lines = (tmp_path / "prediction_results.txt").read_text().splitlines()[1:]
    assert [row["Sequence_ID"] for row in orfs.to_pylist()] == [line.split("\t")[0] for line in lines]
    assert np.abs(orfs["score2"].to_numpy() - [float(line.split("\t")[3]) for line in lines]).max() < 1e-6


@pytest.mark.parametrize(
    "form",
    [
        lambda reads, _: reads,
        lambda reads, _: list(reads.items()),
        lambda reads, _: (pair for pair in reads.items()),
        lambda reads, _: [SeqRecord(Seq(letters), id=name) for name, letters in reads.items()],
        lambda reads, folder: written(folder / "a.fa", reads),
        lambda reads, folder: str(written(folder / "a b.fa", reads)),
        lambda reads, folder: [written(folder / "a(1).fa", reads)],
    ],
    ids=["mapping", "pairs", "iterator", "Biopython", "path", "text path", "paths"],
)
def test_sequences_come_in_many_forms(predictor: Predictor, tmp_path: Path, form: Callable) -> None:
    wanted = predictor.predict(READS).drop_columns("file")
    found = predictor.predict(form(READS, tmp_path))
    assert found.drop_columns("file").equals(wanted)
    assert wanted["sequence_id"].to_pylist() == list(READS)
    assert wanted["call"].to_pylist()[2] is None
    assert wanted["status"].to_pylist() == ["called", "called", "no_orf"]


def written(path: Path, reads: dict[str, str]) -> Path:
    path.write_text("".join(f">{name}\n{letters}\n" for name, letters in reads.items()))
    return path


def test_sequences_without_names_are_numbered(predictor: Predictor) -> None:
    table = predictor.predict(list(READS.values()))
    assert table["sequence_id"].to_pylist() == ["sequence_1", "sequence_2", "sequence_3"]
    assert table["file"].to_pylist() == ["-"] * 3
    one = predictor.predict(READS["first"])
    assert one.drop_columns("sequence_id").equals(table.slice(0, 1).drop_columns("sequence_id"))
    assert predictor.predict([]).num_rows == 0


def test_repeated_sequences_have_the_scores_of_the_first(predictor: Predictor) -> None:
    table = predictor.predict([("x", READS["first"]), ("y", READS["first"])])
    assert table["sequence_id"].to_pylist() == ["x", "y"]
    assert len(set(table["max_virus_score"].to_pylist())) == 1


@pytest.mark.parametrize("wrap", [lambda one: one, lambda one: [one]])
def test_one_sequence_of_biopython_is_one_record(wrap: Callable[[Any], Any]) -> None:
    letters = next(iter(READS.values()))
    by_text = virnucpro_pl.predict(letters, settings=CPU)
    assert virnucpro_pl.predict(wrap(Seq(letters)), settings=CPU).equals(by_text)
    named = virnucpro_pl.predict(wrap(SeqRecord(Seq(letters), id="r1")), settings=CPU)
    assert named["sequence_id"].to_pylist() == ["r1"]
    assert named["call"] == by_text["call"]


def test_a_sequence_without_letters_is_refused() -> None:
    with pytest.raises(UserError, match=r"sequence 1: .*; give its letters"):
        virnucpro_pl.predict([SeqRecord(Seq(None, 30), id="r1")], settings=CPU)


def test_the_model_stays_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    from virnucpro_pl.models.weights.sources import Esm2Source

    loads: list[str] = []
    load = Esm2Source.load
    monkeypatch.setattr(Esm2Source, "load", lambda self: loads.append(self.weights) or load(self))
    settings = {**CPU, "data.token_budget": 4321}  # of no other test, whose model may still be loaded
    first = virnucpro_pl.predict(READS, settings=settings)
    again = virnucpro_pl.predict(READS, settings=settings)
    assert len(loads) == 1
    assert first.equals(again)
    virnucpro_pl.predict(READS, settings={**settings, "results.tie": "ambiguous"})
    assert len(loads) == 2


def test_settings_are_those_of_predict() -> None:
    strict = virnucpro_pl.predict(READS, settings={**CPU, "results.threshold": 0.999})
    assert "virus" not in strict["call"].to_pylist()
    cut = virnucpro_pl.predict(
        READS, level="chunk", settings={**CPU, "data.chunk_length": 150, "data.chunking": "even"}
    )
    assert cut["end"].to_numpy().max() <= 150


@pytest.mark.parametrize(
    ("sequences", "told"),
    [
        ("no/such/file.fa", "no/such/file.fa: no such file, nor a sequence"),
        ([("a b", "ACGT")], "'a b' of sequence 1 is empty or has blanks in it"),
        ([("", "ACGT")], "is empty or has blanks in it"),
        (["ACGT", 5], "sequence 2 is 5; give text"),
        ([("x", ">y\nACGT")], "is no sequence"),
        (5, "sequences is a int; give a path"),
        (b"ACGT", "sequences is a bytes; give a path"),
        ([b"ACGT"], "sequence 1 is b'ACGT'; give text"),
    ],
)
def test_what_is_no_sequence_is_told(predictor: Predictor, sequences: object, told: str) -> None:
    with pytest.raises(UserError, match="sequence") as error:
        predictor.predict(sequences)
    assert told in str(error.value)


@pytest.mark.parametrize(
    "name", ["reads.fa", "nosuch", "*.fa", "-", "~", "a b", "sat.gb", "e" * 300, "é", "1"], ids=lambda name: name[:9]
)
def test_what_may_be_a_path_is_never_a_sequence(predictor: Predictor, name: str, tmp_path: Path) -> None:
    """I1: a misspelt path gave a row for a sequence called sequence_1."""
    file = written(tmp_path / "a.fa", READS)
    forms = [name, [name], [name, "ACGT"], ["ACGT", name], [str(file), name], [name, file], Path(name)]
    for form in forms:
        with pytest.raises(UserError, match="no such file") as error:
            predictor.predict(form)
        assert "\n" not in str(error.value)


def test_a_file_that_is_called_like_standard_input_is_read(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b">other\nACGT\n")))
    written(tmp_path / "-", READS)
    for form in ("-", "./-", Path("-"), [Path("./-")]):
        assert predictor.predict(form)["sequence_id"].to_pylist() == list(READS), form


def test_a_list_with_a_path_holds_no_sequences(predictor: Predictor, tmp_path: Path) -> None:
    file = written(tmp_path / "a.fa", READS)
    with pytest.raises(UserError, match="ACGT: no such file"):
        predictor.predict([file, "ACGT"])
    with pytest.raises(UserError, match="a tuple among paths"):
        predictor.predict([str(file), ("x", "ACGT")])
    with pytest.raises(UserError, match=r"'reads\.fa', is no sequence; give paths of files by themselves"):
        predictor.predict({"sample": "reads.fa"})
    with pytest.raises(UserError, match="a folder; give the files in it"):
        predictor.predict(str(tmp_path))


def test_a_sequence_may_be_longer_than_a_file_name(predictor: Predictor) -> None:
    assert predictor.predict("ATGGCTGCTAAAGCTGCTGCTGGT" * 50)["length"].to_pylist() == [1200]


IDS = ["NA", "null", "NULL", "nan", "None", "1e3", "TRUE", "007", "1_1", "-", '"', '"a"', "'", "=1+1", "+x", "@y", "#z"]
IDS += ["a,b", "a;b", "\\N", "\\t", "${x}", "é", "0x1F", "2026-11-28", "inf", "x" * 1_000_000, ".", "NA_chunk_1"]


@pytest.mark.parametrize("level", ["record", "chunk", "orf"])
def test_ids_are_kept_to_the_letter(predictor: Predictor, level: str) -> None:
    """F4: influenza's segment NA became null."""
    ids = IDS if level == "record" else [name for name in IDS if len(name) < 1000]
    table = predictor.predict([(name, READS["first"]) for name in ids], level=level)
    column = {"record": "sequence_id", "chunk": "sequence_id", "orf": "Sequence_ID"}[level]
    found = table[column].to_pylist()
    assert [*dict.fromkeys(name.rpartition("_chunk_")[0] if level == "orf" else name for name in found)] == ids
    assert table[column].null_count == 0


def test_only_scores_and_calls_are_null(predictor: Predictor) -> None:
    table = predictor.predict([("NA", READS["stops"]), ("x", READS["first"])])
    missing = {name for name in table.column_names if table[name].null_count}
    assert missing == {"viral_chunk_fraction", "max_virus_score", "call"}
    assert table["status"].to_pylist() == ["no_orf", "called"]


def test_a_name_that_is_no_text_is_refused(predictor: Predictor) -> None:
    with pytest.raises(UserError, match="is no text"):
        predictor.predict([("x\udcff", "ACGT")])


def test_calls_from_threads_give_the_table_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """F8: the configuration is composed, and the model loaded and used, by one thread at a time."""
    monkeypatch.setattr("virnucpro_pl.api._kept", None)
    wanted = Predictor("demo", CPU).predict(READS)

    def call(number: int) -> object:
        settings = CPU if number % 3 else {**CPU, "results.min_viral_fraction": 0.4}
        return virnucpro_pl.predict((pair for pair in READS.items()), settings=settings)

    with ThreadPoolExecutor(6) as threads:
        tables = [*threads.map(call, range(9))]
    assert all(table.drop_columns("call").equals(wanted.drop_columns("call")) for table in tables)


HOST = """
import json, sys
import hydra
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.version import getbase
from omegaconf import OmegaConf

OmegaConf.register_new_resolver("twice", lambda x: 2 * x)

@hydra.main(version_base="1.2", config_path=None)
def main(cfg):
    from virnucpro_pl import Predictor, predict
    state, loader = GlobalHydra.instance(), GlobalHydra.instance().config_loader()
    rows = predict({"x": "ATGGCTGCTGCTGCTGCTGCT" * 8}, settings={"trainer.accelerator": "cpu"}).num_rows
    print(json.dumps({
        "rows": rows,
        "job": HydraConfig.get().job.name,
        "version": str(getbase()),
        "state": GlobalHydra.instance() is state and state.config_loader() is loader,
        "twice": OmegaConf.create({"a": "${twice:2}", "b": "${hydra:job.name}"}).a,
    }))

main()
"""


def test_calls_from_within_another_hydra_application(tmp_path: Path) -> None:
    """F8: it finds its own state afterwards."""
    (tmp_path / "host.py").write_text(HOST)
    done = subprocess.run([sys.executable, "host.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {"rows": 1, "job": "host", "version": "1.2", "state": True, "twice": 4}


def test_calls_between_those_of_hydra_itself(tmp_path: Path) -> None:
    (tmp_path / "theirs.yaml").write_text("a: 1\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        assert Predictor("demo", CPU).predict("ACGT").num_rows == 1
        assert compose("theirs").a == 1
        with pytest.raises(UserError):
            Predictor("nothing")
        assert compose("theirs").a == 1


def test_wrong_settings_are_told(predictor: Predictor) -> None:
    with pytest.raises(UserError, match="level='frames': choose one of record, chunk, orf"):
        predictor.predict(READS, level="frames")
    with pytest.raises(UserError, match="Could not find 'model/nothing'"):
        Predictor("nothing")
    with pytest.raises(UserError, match=r"no\.such: predict has no such setting"):
        virnucpro_pl.predict(READS, settings={**CPU, "no.such": [1, 2]})
    for key in ("data.chunk_length ", "data.chunk_length=", "data.chunk length"):
        with pytest.raises(UserError, match=r"predict has no such setting; did you mean data\.chunk_length"):
            virnucpro_pl.predict(READS, settings={**CPU, key: 300})
    with pytest.raises(UserError, match="in Python it is 1"):
        Predictor("demo", {**CPU, "trainer.devices": 2})
    with pytest.raises(UserError, match="trained on chunks of 150 to 500 nt"):
        Predictor("demo", {**CPU, "data.chunk_length": 900})


def test_importing_the_package_is_instant() -> None:
    code = "import sys, virnucpro_pl; print({'torch', 'hydra', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        virnucpro_pl.nothing  # noqa: B018


@pytest.mark.parametrize("missing", [None, float("nan"), 3, True, b"ACGT", np.float64("nan")])
def test_a_missing_value_is_no_sequence(missing: Any) -> None:
    for sequences in ({"a": missing}, [("a", missing)], [SimpleNamespace(id="a", seq=missing)], [missing]):
        with pytest.raises(UserError, match="sequence 1 is"):
            predict(sequences)
    with pytest.raises(UserError, match="sequence 1 is"):
        predict([SimpleNamespace(id=None, seq="ACGT")])


def test_weights_that_were_replaced_are_loaded_again(tmp_path: Path, mini: Path) -> None:
    heads = [mini / "models" / "mlp" / f"{length}_model.pth" for length in (300, 500)]
    settings = {"trainer.accelerator": "cpu", "model.head.weights": str(tmp_path / "head.pth")}
    settings |= {"model.head.any_chunk_length": True}
    overrides = dict(one.split("=", 1) for one in model_overrides(mini) if "encoder" in one)
    found = []
    for head in heads:
        shutil.copy(head, tmp_path / "new.pth")
        (tmp_path / "new.pth").replace(tmp_path / "head.pth")
        read = {"a": "ATGGCTGCAAAAGCTGGTCTGGATGAACGT" * 5}
        found.append(predict(read, "virnucpro_300", settings={**overrides, **settings})["max_virus_score"][0].as_py())
    assert found[0] != found[1]
