"""``compare``: figures equal those of plain loops, in every format, and decide on the exit status."""

import bz2
import gzip
import json
import lzma
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import MINI, Result
from virnucpro_pl.results.compared_table import read_call_table
from virnucpro_pl.results.comparison import Comparison

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Cli = Callable[..., Result]
CASE = next(path for path in sorted((MINI / "expected").iterdir()) if (path / "prediction_results.txt").exists())
HEADER = "Sequence_ID\tPrediction\tscore1\tscore2\n"


def table(folder: Path, rows: list[tuple[str, float]], name: str = "prediction_results.txt") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{id_}\t{'virus' if score > 0.5 else 'others'}\t{1 - score!r}\t{score!r}\n" for id_, score in rows]
    (folder / name).write_text(HEADER + "".join(lines), encoding="utf-8")
    return folder / name


def figures_of(output: Path) -> dict:
    return json.loads((output / "compare.json").read_text())["figures"]


ROWS = st.lists(st.tuples(st.sampled_from([f"r{n}_chunk_1F1" for n in range(12)]), st.floats(0, 1)), max_size=25)


@given(reference=ROWS, candidate=ROWS)
def test_figures_are_those_of_a_plain_loop(tmp_path_factory, reference, candidate) -> None:
    folder = tmp_path_factory.mktemp("tables")
    paths = [table(folder / name, rows) for name, rows in (("a", reference), ("b", candidate))]
    figures = Comparison(*(read_call_table(path, "per-frame", "x") for path in paths), 0.01, 0.05).metrics()

    sides = []
    for rows in (reference, candidate):
        seen: dict[str, int] = defaultdict(int)
        side = {}
        for id_, score in rows:
            side[id_, seen[id_]] = score
            seen[id_] += 1
        sides.append(side)
    both = sorted(sides[0].keys() & sides[1].keys())
    pairs = [(sides[0][key], sides[1][key]) for key in both]
    assert figures["compared"] == len(both)
    assert figures["missing_in_candidate"] == len(sides[0].keys() - sides[1].keys())
    assert figures["missing_in_reference"] == len(sides[1].keys() - sides[0].keys())
    wrong = [(a, b) for a, b in pairs if (a > 0.5) != (b > 0.5)]
    assert figures["same_label"] == len(pairs) - len(wrong)
    borderline = sum(max(abs((a - (1 - a) + 1) / 2 - 0.5), abs((b - (1 - b) + 1) / 2 - 0.5)) <= 0.05 for a, b in wrong)
    assert figures["mismatches"] == {"borderline": borderline, "clear": len(wrong) - borderline}
    if pairs:
        differences = [max(abs(a - b), abs((1 - a) - (1 - b))) for a, b in pairs]
        for name in ("mean", "median", "max", "std"):
            assert figures["scores"][name] == pytest.approx(getattr(np, name)(differences))
        within = sum(difference <= 0.01 for difference in differences) / len(pairs)
        assert figures["scores"]["within_tolerance"] == within
        assert sum(row["count"] for row in figures["scores"]["histogram"]) == len(pairs)


def test_the_published_tables_agree_with_themselves_in_every_mode(cli: Cli, tmp_path: Path) -> None:
    for mode in ("per-frame", "consensus"):
        result = cli("compare", f"reference={CASE}", f"candidate={CASE}", f"mode={mode}", f"output={tmp_path}")
        assert result.code == 0, result.err
        assert "100.0000%" in result.err
        assert "The runs agree" in result.err
    assert figures_of(tmp_path)["scores"] is None, "the published consensus has no scores"


def test_a_consensus_without_scores_is_compared_by_label_with_one_that_has_them(cli: Cli, tmp_path: Path) -> None:
    ours = tmp_path / "ours.csv"
    ours.write_text(
        "Modified_ID\tIs_Virus\tmax_score_0\tmax_score_1\nb_chunk_1\tTrue\t0.1\t0.9\na_chunk_1\tFalse\t0.8\t0.3\n"
    )
    published = tmp_path / "published.csv"
    published.write_text("Modified_ID\tIs_Virus\na_chunk_1\tTrue\nb_chunk_1\tTrue\n")
    result = cli("compare", f"reference={published}", f"candidate={ours}", "mode=consensus", f"output={tmp_path}")
    assert result.code == 1
    assert "label agreement 50.0000% is below min_agreement=0.99" in result.err
    assert (tmp_path / "mismatches.tsv").read_text().splitlines()[1] == "a_chunk_1\tlabel\tTrue\tFalse\tNA\t0.3\tNA\tNA"
    again = cli(
        "compare", f"reference={published}", f"candidate={ours}", "mode=consensus", f"output={tmp_path}",
        "min_agreement=0.5",
    )  # fmt: skip
    assert again.code == 0, again.err


def test_ids_of_records_keep_their_quotes(cli: Cli, tmp_path: Path) -> None:
    one, two = tmp_path / "one.tsv", tmp_path / "two.tsv"
    one.write_text('sequence_id\tcall\n"a"\tvirus\na\tothers\n')
    two.write_text('sequence_id\tcall\na\tothers\n"a"\tvirus\n')
    words = ["compare", f"reference={one}", "mode=record", f"output={tmp_path}"]
    assert cli(*words, f"candidate={two}").code == 0
    two.write_text("sequence_id\tcall\na\tothers\n")
    assert cli(*words, f"candidate={two}").code == 1


def test_ids_that_pandas_quoted_are_those_without_quotes(cli: Cli, tmp_path: Path) -> None:
    quoted, plain = tmp_path / "quoted.csv", tmp_path / "plain.csv"
    quoted.write_text('Modified_ID\tIs_Virus\n"x""y_chunk_1"\tTrue\n')
    plain.write_text('Modified_ID\tIs_Virus\nx"y_chunk_1\tTrue\n')
    assert cli("compare", f"reference={quoted}", f"candidate={plain}", "mode=consensus", f"output={tmp_path}").code == 0


def test_tables_of_the_rewrite_with_commas_are_read(cli: Cli, tmp_path: Path) -> None:
    tabs = table(tmp_path / "a", [("x_chunk_1F1", 0.25), ("y_chunk_1R3", 0.75)])
    commas = tmp_path / "b.csv"
    commas.write_text(tabs.read_text().replace("\t", ","))
    assert cli("compare", f"reference={tabs}", f"candidate={commas}", f"output={tmp_path}").code == 0


GZIP_TIMES = {"no separator": 1, "tab": 0x09, "comma": 0x2C, "line end": 0x0A, "tab and line end": 0x0A09}
"""Time stamps of gzip headers whose bytes could be taken for text"""
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    **{f"gzip, {name}": partial(gzip.compress, mtime=time) for name, time in GZIP_TIMES.items()},
    "gzip, two members": lambda data: gzip.compress(data[:30], mtime=0) + gzip.compress(data[30:], mtime=0),
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd.compress,
}
TEXTS: dict[str, Callable[[bytes], bytes]] = {
    "as written": lambda data: data,
    "CRLF": lambda data: data.replace(b"\n", b"\r\n"),
    "byte order mark": lambda data: b"\xef\xbb\xbf" + data,
    "mark and CRLF": lambda data: b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"),
    "no last line end": lambda data: data.removesuffix(b"\n"),
    "commas": lambda data: data.replace(b"\t", b","),
    "commas, quoted": lambda data: b'"' + data.strip().replace(b"\t", b'","').replace(b"\n", b'"\n"') + b'"',
}


@pytest.mark.parametrize("rows", [0, 2])
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("packed", PACKED)
def test_tables_are_told_by_their_text_not_by_compressed_bytes_or_names(
    tmp_path: Path, packed: str, text: str, rows: int
) -> None:
    """Kind: anything decided from the raw bytes of a compressed file, or from its name (A1)."""
    written = [("x_chunk_1F1", 0.25), ("y_chunk_1R3", 0.75)][:rows]
    plain = table(tmp_path, written)
    for name in ("table.txt", "table.csv", "table.tsv.gz", "table.bz2", "table"):
        other = tmp_path / name
        other.write_bytes(PACKED[packed](TEXTS[text](plain.read_bytes())))
        found = read_call_table(other, "per-frame", "candidate")
        assert found.ids.to_pylist() == [id_ for id_, _ in written]
        assert found.labels.to_pylist() == ["others", "virus"][:rows]
        assert found.virus is not None
        assert found.virus.tolist() == [score for _, score in written]


def test_compressed_tables_are_compared(cli: Cli, tmp_path: Path) -> None:
    plain = table(tmp_path / "a", [("x_chunk_1F1", 0.25), ("y_chunk_1R3", 0.75)])
    packed = tmp_path / "c.txt.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes(), mtime=1))
    result = cli("compare", f"reference={plain}", f"candidate={packed}", f"output={tmp_path / 'out'}")
    assert result.code == 0, result.err


@pytest.mark.parametrize(
    ("damaged", "told"),
    [
        (lambda data: gzip.compress(data, mtime=9)[:-9], "truncated"),
        (lambda data: lzma.compress(data)[:-20], "truncated"),
        (lambda data: gzip.compress(data, mtime=9)[:-8] + bytes(8), "damaged"),
        (lambda data: data.decode().encode("utf-16"), "encoded as UTF-16; save it as UTF-8"),
        (lambda data: data.replace(b"y_chunk", b"\xff_chunk"), "cannot be read as a table"),
    ],
)
def test_tables_that_cannot_be_read_are_told_in_one_line(
    cli: Cli, tmp_path: Path, damaged: Callable[[bytes], bytes], told: str
) -> None:
    plain = table(tmp_path / "a", [("x_chunk_1F1", 0.25), ("y_chunk_1R3", 0.75)])
    (tmp_path / "bad").write_bytes(damaged(plain.read_bytes()))
    result = cli("compare", f"reference={plain}", f"candidate={tmp_path / 'bad'}", f"output={tmp_path / 'out'}")
    assert result.code == 2
    assert told in result.err
    assert len(result.err.splitlines()) == 1


def test_missing_ids_fail_and_are_named(cli: Cli, tmp_path: Path) -> None:
    a = table(tmp_path / "a", [("x_chunk_1F1", 0.25), ("y_chunk_1F1", 0.75)])
    b = table(tmp_path / "b", [("y_chunk_1F1", 0.75), ("z_chunk_1F1", 0.75)])
    result = cli("compare", f"reference={a}", f"candidate={b}", f"output={tmp_path}")
    assert result.code == 1
    assert "2 ids are on one side only" in result.err
    rows = [line.split("\t")[:2] for line in (tmp_path / "mismatches.tsv").read_text().splitlines()[1:]]
    assert rows == [["x_chunk_1F1", "missing_in_candidate"], ["z_chunk_1F1", "missing_in_reference"]]
    assert "chunks of the same length?" in result.err


def test_near_ties_can_be_left_out_of_what_must_hold(cli: Cli, tmp_path: Path) -> None:
    a = table(tmp_path / "a", [("x_chunk_1F1", 0.499), ("y_chunk_1F1", 0.9)])
    near = table(tmp_path / "b", [("x_chunk_1F1", 0.501), ("y_chunk_1F1", 0.9)])
    far = table(tmp_path / "c", [("x_chunk_1F1", 0.499), ("y_chunk_1F1", 0.1)])
    gates = ["min_agreement=0.5", "min_clear_agreement=1", f"output={tmp_path}"]
    assert cli("compare", f"reference={a}", f"candidate={near}", *gates).code == 0
    result = cli("compare", f"reference={a}", f"candidate={far}", *gates)
    assert result.code == 1
    assert "clear agreement 50.0000%" in result.err


def test_mismatches_are_limited_worst_first(cli: Cli, tmp_path: Path) -> None:
    rows = [(f"r{n}_chunk_1F1", 0.5 + n / 40) for n in range(1, 20)]
    a, b = table(tmp_path / "a", rows), table(tmp_path / "b", [(id_, 1 - score) for id_, score in rows])
    arguments = [f"reference={a}", f"candidate={b}", f"output={tmp_path}", "min_agreement=0"]
    assert cli("compare", *arguments, "mismatch_limit=3").code == 0
    ids = [line.split("\t")[0] for line in (tmp_path / "mismatches.tsv").read_text().splitlines()[1:]]
    assert ids == ["r19_chunk_1F1", "r18_chunk_1F1", "r17_chunk_1F1"]
    assert cli("compare", *arguments, "mismatch_limit=null").code == 0
    assert len((tmp_path / "mismatches.tsv").read_text().splitlines()) == 20


def test_runs_of_different_heads_and_chunk_lengths_are_told(cli: Cli, tmp_path: Path) -> None:
    for name, length, head in (("a", 300, "11"), ("b", 500, "22")):
        table(tmp_path / name, [("x_chunk_1F1", 0.75)])
        fingerprint = {"data.chunk_length": length, "model.head.weights": [head], "input": ["same"]}
        (tmp_path / name / "run.json").write_text(json.dumps({"identity": fingerprint}))
    result = cli("compare", f"reference={tmp_path / 'a'}", f"candidate={tmp_path / 'b'}", f"output={tmp_path / 'out'}")
    assert result.code == 0
    assert "data.chunk_length=300 in the reference, 500 in the candidate" in result.err
    assert "model.head.weights: other weights" in result.err


def test_a_folder_of_the_published_script_is_understood(cli: Cli, tmp_path: Path) -> None:
    published = tmp_path / "reads_merged"
    shutil.copytree(CASE, published)
    assert cli("compare", f"reference={tmp_path}", f"candidate={published}", f"output={tmp_path / 'out'}").code == 0


def test_our_records_are_compared_by_call(cli: Cli, tmp_path: Path) -> None:
    for name, call in (("a", "virus"), ("b", "NA")):
        (tmp_path / name).mkdir()
        score = "0.900000" if call == "virus" else "NA"
        (tmp_path / name / "sequences.tsv").write_text(
            f"record\tsequence_id\tmax_virus_score\tcall\n1\tx\t{score}\t{call}\n2\ty\tNA\tNA\n"
        )
    result = cli(
        "compare", f"reference={tmp_path / 'a'}", f"candidate={tmp_path / 'b'}", "mode=record", f"output={tmp_path}"
    )
    assert result.code == 1
    assert "virus -> NA" in result.err


def test_nothing_to_compare_is_refused(cli: Cli, tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_bytes(b"")
    header = table(tmp_path / "a", [])
    result = cli("compare", f"reference={empty}", f"candidate={header}", f"output={tmp_path / 'out'}")
    assert result.code == 2
    assert "both tables are empty" in result.err
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["candidate=A"], "reference: not given"),
        (["reference=NOWHERE", "candidate=A"], "reference=NOWHERE does not exist"),
        (["reference=A", "candidate=A", "mode=frames"], "mode=frames: choose one of per-frame, consensus, record"),
        (["reference=A", "candidate=A", "mode=consensus"], "no consensus table; give mode=per-frame"),
        (["reference=A", "candidate=EMPTY"], "holds no prediction_results.txt"),
        (["reference=A", "candidate=BAD"], "column score2 holds something other than numbers"),
        (["reference=A", "candidate=TWICE"], "has the column Prediction twice; remove one"),
        (["reference=A", "candidate=RAGGED"], "cannot be read as a table"),
        (["reference=A", "candidate=NAN"], "column score1 holds no score of any called row"),
        (["reference=A", "candidate=CR"], "lines end with CR only; convert them: tr"),
        (["reference=A", "candidate=A", "tolerance=2"], "tolerance=2: give a difference of scores between 0 and 1"),
        (["reference=A", "candidate=A", "min_agreement=99"], "min_agreement=99: give a share between 0 and 1"),
    ],
)
def test_mistakes_are_told_in_one_line(cli: Cli, tmp_path: Path, arguments: list[str], told: str) -> None:
    places = {"A": table(tmp_path, [("x_chunk_1F1", 0.75)]), "EMPTY": tmp_path / "empty"}
    places["EMPTY"].mkdir()
    for name, row in (("BAD", "x\tvirus\t0.2\tmuch\n"), ("RAGGED", "x\tvirus\n"), ("NAN", "x\tvirus\tnan\tnan\n")):
        places[name] = tmp_path / f"{name}.txt"
        places[name].write_text(HEADER + row)
    places["TWICE"] = tmp_path / "TWICE.txt"
    places["TWICE"].write_text(HEADER.rstrip() + "\tPrediction\nx\tvirus\t0.2\t0.8\tvirus\n")
    places["CR"] = tmp_path / "CR.txt"
    places["CR"].write_bytes(places["A"].read_bytes().replace(b"\n", b"\r"))
    filled = [
        f"{key}={places.get(value, value)}" for key, _, value in (argument.partition("=") for argument in arguments)
    ]
    result = cli("compare", *filled, f"output={tmp_path / 'out'}")
    assert result.code == 2
    assert told in result.err
    assert "Traceback" not in result.err
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize("side", ["reference", "candidate"])
@pytest.mark.parametrize("score", ["nan", "NA", "inf"])
def test_a_called_id_without_score_is_no_agreement(cli: Cli, tmp_path: Path, side: str, score: str) -> None:
    """As a score that overflows in half precision."""
    lines = [f"{name}\tvirus\t0.1\t0.9\n" for name in "abc"]
    (tmp_path / "whole.txt").write_text(HEADER + "".join(lines))
    lines[1] = f"b\tvirus\t{score}\t{score}\n"
    (tmp_path / "lacking.txt").write_text(HEADER + "".join(lines))
    other = {"reference": "candidate", "candidate": "reference"}[side]
    words = [f"{side}={tmp_path / 'lacking.txt'}", f"{other}={tmp_path / 'whole.txt'}", f"output={tmp_path / 'out'}"]
    result = cli("compare", *words)
    assert result.code == 1
    assert "1 called ids have no score in one of the runs" in result.err
    assert figures_of(tmp_path / "out")["scores"]["missing"] == 1
    rows = (tmp_path / "out" / "mismatches.tsv").read_text().splitlines()
    assert [row.split("\t")[:2] for row in rows[1:]] == [["b", "score"]]
