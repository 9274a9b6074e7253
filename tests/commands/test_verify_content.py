"""``verify``: files that contradict one another are told, also where their checksums were changed with them.

Kind: results that are wrong though every file is as ``run.json`` says.
"""

import gzip
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from support import Result, open_genome, run_here
from virnucpro_pl.commands.verify import verify
from virnucpro_pl.errors import DamagedResultsError, UserError
from virnucpro_pl.files.digests import sha256_of

Cli = Callable[..., Result]
FORMATS = ("nonviral", "fastq", "kraken", "bed", "multiqc")


def entries() -> Iterator[tuple[str, str]]:
    """Records of every status: long and short, without ORF, without nucleotides, of two bases, empty."""
    generator = np.random.default_rng(1)
    for number in range(14):
        yield f"read{number} said more", open_genome(generator, (90, 700, 1300)[number % 3])
    yield from (("stops", "TAATTAATTAA" * 9), ("unknown", "N" * 60), ("short", "AC"), ("nothing", ""))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of FASTA, of mates and of single reads, with everything that can be asked for."""
    folder = tmp_path_factory.mktemp("finished")
    fastas = "".join(f">{name}\n{letters}\n" for name, letters in entries())
    (folder / "a.fa").write_text(fastas + fastas[:200].rpartition(">")[0])
    for name, tag in (("r1.fq", " 1:N:0:A"), ("r2.fq", " 2:N:0:A"), ("single.fq", "")):
        generator = np.random.default_rng(len(tag) + ord(name[1]))
        reads = [(f"{name[0]}pair{number}{tag}", open_genome(generator, 60 + 5 * number)) for number in range(9)]
        (folder / name).write_text("".join(f"@{name}\n{letters}\n+\n{'I' * len(letters)}\n" for name, letters in reads))
    inputs = ",".join(str(folder / name) for name in ("a.fa", "r1.fq", "r2.fq", "single.fq"))
    formats = ["formats.report=false", *(f"formats.{name}=true" for name in FORMATS)]
    assert (
        run_here(
            "predict",
            f"input=[{inputs}]",
            f"output={folder / 'out'}",
            "results.tie=ambiguous",
            "results.threshold=0.44",
            *formats,
        )
        == 0
    )
    return folder / "out"


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "out")
    return tmp_path / "out"


def rewrite_record(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    run = json.loads((folder / "run.json").read_text())
    change(run)
    (folder / "run.json").write_text(json.dumps(run))


def forge(folder: Path, name: str) -> None:
    """Make size and SHA-256 in run.json those of the file as it is."""
    facts = {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)[name]}
    rewrite_record(folder, lambda run: run["files"].update({name: facts}))


def verified(folder: Path) -> str:
    """What ``verify`` ends with: nothing, or its one line."""
    told = ""
    try:
        verify(OmegaConf.create({"output": str(folder)}))
    except (UserError, DamagedResultsError) as error:
        told = str(error)
    assert "\n" not in told
    return told


def test_a_run_with_every_format_is_well(cli: Cli, finished: Path) -> None:
    result = cli("verify", f"output={finished}")
    assert result.code == 0, result.err
    statuses = json.loads((finished / "run.json").read_text())["counts"]["record_status"]
    assert {name for name, count in statuses.items() if count} == {
        "called", "no_orf", "ambiguous_only", "too_short", "empty"
    }  # fmt: skip
    for name in ("viral_1.fastq.gz", "nonviral.fasta", "kraken.tsv", "virnucpro_calls_mqc.json"):
        assert f"  {name} " in result.err


# --- rows


def drop(rows: list) -> list:
    return rows[:-2] + rows[-1:]


def drop_last(rows: list) -> list:
    return rows[:-1]


def repeat(rows: list) -> list:
    return [*rows, rows[-1]]


def swap(rows: list) -> list:
    return [*rows[:-2], rows[-1], rows[-2]]


def swap_ends(rows: list) -> list:
    return [rows[-1], *rows[1:-1], rows[0]]


def remove_all(rows: list) -> list:
    return []


LOSSES = (drop, drop_last, repeat, swap, swap_ends, remove_all)
HEADERS = {"prediction_results.txt": 1, "prediction_results_highestscore.csv": 1, "sequences.tsv": 1}
LINES_OF_ONE = {".fasta": b">", ".gz": b"@"}


def parts_of(path: Path) -> tuple[bytes, list[bytes]]:
    """Header, and the rows or sequences below it."""
    if path.suffix == ".gz":
        lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
        return b"", [b"".join(lines[row : row + 4]) for row in range(0, len(lines), 4)]
    content = path.read_bytes()
    if path.suffix == ".fasta":
        return b"", [b">" + part for part in content.split(b">")[1:]]
    lines = content.splitlines(keepends=True)
    count = HEADERS.get(path.name, 0)
    return b"".join(lines[:count]), lines[count:]


def write_parts(path: Path, header: bytes, parts: list[bytes]) -> None:
    content = header + b"".join(parts)
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


ROW_FILES = (
    *HEADERS, "viral.fasta", "nonviral.fasta", "uncalled.fasta", "viral.fastq.gz", "viral_1.fastq.gz",
    "nonviral_2.fastq.gz", "kraken.tsv", "viral_chunks.bed",
)  # fmt: skip


@pytest.mark.parametrize("change", LOSSES)
@pytest.mark.parametrize("name", ROW_FILES)
def test_lost_added_and_swapped_rows_are_noticed(folder: Path, name: str, change: Callable[[list], list]) -> None:
    header, parts = parts_of(folder / name)
    assert len(parts) > 2, "the run has too few to try this on"
    write_parts(folder / name, header, change(parts))
    assert f"{name} not as written" in verified(folder)
    forge(folder, name)
    assert "contradict" in verified(folder)


@pytest.mark.parametrize("change", LOSSES)
def test_lost_added_and_swapped_chunks_are_noticed(folder: Path, change: Callable[[list], list]) -> None:
    path = folder / "predictions.parquet"
    table = pq.read_table(path)
    pq.write_table(table.take(pa.array(change([*range(len(table))]), pa.int64())), path)
    assert "predictions.parquet not as written" in verified(folder)
    forge(folder, path.name)
    assert "contradict" in verified(folder)


# --- cells


def other(cell: str) -> Iterator[str]:
    """Other values of a cell."""
    swapped = {"virus": "others", "others": "virus", "True": "False", "False": "True", "called": "no_orf", "no": "yes"}
    if cell in swapped:
        yield swapped[cell]
    elif cell.isdigit():
        yield from (str(int(cell) + 1), "-1", "99999999999999", "x")
    elif cell.replace(".", "").isdigit():
        yield from (f"{float(cell) + 0.25:.6f}", "NA", "nan")
    else:
        yield cell + "x"
    yield ""


@pytest.mark.parametrize("name", HEADERS)
def test_every_changed_cell_of_a_table_is_noticed(folder: Path, name: str) -> None:
    header, rows = parts_of(folder / name)
    before = (folder / name).read_bytes()
    for column in range(len(header.split(b"\t"))):
        for row in (0, len(rows) // 2):
            cells = rows[row].decode().rstrip("\n").split("\t")
            for value in other(cells[column]):
                changed = "\t".join([*cells[:column], value, *cells[column + 1 :]]) + "\n"
                write_parts(folder / name, header, [*rows[:row], changed.encode(), *rows[row + 1 :]])
                forge(folder, name)
                assert "contradict" in verified(folder), (header.split(b"\t")[column], cells[column], value)
    (folder / name).write_bytes(before)
    forge(folder, name)
    assert not verified(folder)


def test_every_changed_cell_of_the_chunks_is_noticed(folder: Path) -> None:
    path = folder / "predictions.parquet"
    table = pq.read_table(path)
    (called,) = np.flatnonzero(table["call"].to_numpy(zero_copy_only=False) == "virus")[:1].tolist()
    for number, field in enumerate(table.schema):
        for row in (called, len(table) - 1):
            values = table.column(number).to_pylist()
            value = values[row]
            changes = [value + "x", None] if isinstance(value, str) else [None] if value is not None else []
            changes += [1] if pa.types.is_integer(field.type) and value != 1 else []
            changes += [0.25] if pa.types.is_floating(field.type) else []
            for change in changes:
                changed = pa.array([*values[:row], change, *values[row + 1 :]], field.type)
                pq.write_table(table.set_column(number, field, changed), path)
                forge(folder, path.name)
                assert "contradict" in verified(folder), (field.name, value, change)
    for name in table.column_names:
        pq.write_table(table.drop_columns([name]), path)
        forge(folder, path.name)
        assert "contradict" in verified(folder), name


def longer(part: bytes) -> bytes:
    return part.replace(b"\n", b"\nA", 1)


def renamed(part: bytes) -> bytes:
    return part[:1] + b"x" + part[1:]


def shortened(part: bytes) -> bytes:
    name, line_end, rest = part.partition(b"\n")
    return name.split()[0][:-1] + line_end + rest


def unnamed(part: bytes) -> bytes:
    return part[:1] + b"\n" + part.split(b"\n", 1)[1]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *((name, change) for name in ROW_FILES if name.endswith(".fasta") for change in (longer, renamed, unnamed)),
        *((name, change) for name in ROW_FILES if name.endswith(".gz") for change in (longer, renamed, shortened)),
    ],
)
def test_changed_sequences_are_noticed(folder: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    header, parts = parts_of(folder / name)
    write_parts(folder / name, header, [*parts[:1], change(parts[1]), *parts[2:]])
    forge(folder, name)
    assert "contradict" in verified(folder)


@pytest.mark.parametrize(
    "name", ["kraken.tsv", "viral_chunks.bed", "virnucpro_calls_mqc.json", "virnucpro_general_mqc.json"]
)
def test_changed_digits_in_other_formats_are_noticed(folder: Path, name: str) -> None:
    before = (folder / name).read_bytes()
    digits = [place for place, byte in enumerate(before) if chr(byte).isdigit()]
    for place in digits[:: max(1, len(digits) // 12)]:
        changed = str((int(chr(before[place])) + 1) % 10).encode()
        (folder / name).write_bytes(before[:place] + changed + before[place + 1 :])
        forge(folder, name)
        assert "contradict" in verified(folder), before[place - 20 : place + 1]


@pytest.mark.parametrize(
    "name", ["viral.fastq.gz", "predictions.parquet", "sequences.tsv", "virnucpro_calls_mqc.json", "viral.fasta"]
)
@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\xff\xfe garbage", b"PAR1"])
def test_files_of_another_kind_are_noticed(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    forge(folder, name)
    assert "contradict" in verified(folder)


# --- the run record


def leaves(tree: Any, path: tuple = ()) -> Iterator[tuple]:
    """Paths to everything in a record, inner nodes included."""
    yield path
    for key in tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield from leaves(tree[key], (*path, key))


def changed_at(tree: Any, path: tuple, value: Any) -> Any:
    """A copy with another value there; without the key, where the value is ``...``."""
    copy = json.loads(json.dumps(tree))
    if not path:
        return value
    place = copy
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return copy


NOT_COMPARED = {
    "no_nucleotides",
    "unique_orfs",
    "whole_chunks",
    "duplicate_names",
    "duplicate_suffix",
    "formula_names",
    "saved",
}


def test_every_changed_count_is_noticed(folder: Path) -> None:
    run = json.loads((folder / "run.json").read_text())
    tried = 0
    for path in leaves(run["counts"]):
        value = run["counts"]
        for key in path:
            value = value[key]
        if not isinstance(value, int) or set(path) & NOT_COMPARED:
            continue
        (folder / "run.json").write_text(json.dumps(changed_at(run, ("counts", *path), value + 1)))
        assert "contradict" in verified(folder), path
        tried += 1
    assert tried > 40


@pytest.mark.parametrize("value", [..., None, True, -1, 1.5, "x", [], {"x": 1}], ids=repr)
def test_a_damaged_run_record_is_one_line(folder: Path, value: Any) -> None:
    """Every value in turn is another, or missing."""
    run = json.loads((folder / "run.json").read_text())
    run["files"] = dict([*run["files"].items()][:6])
    run["identity"] = {key: value for key, value in run["identity"].items() if not isinstance(value, list)}
    run["model"] = {"name": run["model"]["name"]}
    used = ("version", "warnings", "model", "identity", "files", "formats", "counts")
    for path in leaves({key: run[key] for key in used}):
        if not path:
            continue
        (folder / "run.json").write_text(json.dumps(changed_at(run, path, value)))
        verified(folder)  # raises nothing else than the errors that are told in one line


def test_a_run_record_of_a_later_format_is_refused(folder: Path) -> None:
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(run | {"schema_version": 2}))
    assert "schema_version is 2, and this program knows 1" in verified(folder)


def test_a_run_record_without_command_is_damaged(folder: Path) -> None:
    run = json.loads((folder / "run.json").read_text())
    for command in ([], ["virnucpro-pl"]):
        (folder / "run.json").write_text(json.dumps(run | {"command": command}))
        assert "not that of a predict" in verified(folder)


@pytest.mark.parametrize("name", ["../run.json", "/etc/passwd", "..", ".", "", "a/b", "a\0b", "\ud800"])
def test_no_file_outside_the_folder_is_looked_at(folder: Path, name: str) -> None:
    rewrite_record(folder, lambda run: run["files"].update({name: {"bytes": 1, "sha256": "0" * 64}}))
    told = verified(folder)
    assert ("not the name of a file in the output folder" in told) == (name != "\ud800")
    assert told


@pytest.mark.parametrize("name", ["viral.fasta", "predictions.parquet", "kraken.tsv"])
def test_a_file_that_is_not_listed_is_noticed(folder: Path, name: str) -> None:
    (folder / name).unlink()
    rewrite_record(folder, lambda run: run["files"].pop(name))
    assert f"{name} is not listed" in verified(folder)


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"files": {}, "counts": {}}', b"null", b"\xff", b"{}"])
def test_what_is_no_run_record_is_one_line(cli: Cli, folder: Path, content: bytes) -> None:
    (folder / "run.json").write_bytes(content)
    result = cli("verify", f"output={folder}")
    assert result.code == 2
    assert "Traceback" not in result.err
    assert len([line for line in result.err.splitlines() if "Error" in line]) == 1


def test_what_contradicts_what_is_told(cli: Cli, folder: Path) -> None:
    path = folder / "sequences.tsv"
    path.write_text(path.read_text().replace("\tvirus\t", "\tothers\t", 1))
    forge(folder, path.name)
    result = cli("verify", f"output={folder}")
    assert result.code == 1
    (line,) = [line for line in result.err.splitlines() if line.startswith("  sequences.tsv ")]
    assert "call is others, but virus by predictions.parquet" in line
    assert "contradict each other" in result.err.splitlines()[-1]
