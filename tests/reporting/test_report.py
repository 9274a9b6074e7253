"""The report says what the result files say, and nothing else."""

import json
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from reporting.conftest import HOSTILE
from support import Result
from virnucpro_pl.reporting import gathering
from virnucpro_pl.reporting.page import write_report

Cli = Callable[..., Result]


class Page(HTMLParser):
    """What stands in a page, as a browser reads it: text by the id of the section, cells of tables, scripts."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.text = ""
        self.rows: list[list[str]] = []
        self.scripts: list[str] = []
        self.links: list[str] = []
        self._in: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        if tag not in {"meta", "input", "br"}:
            self._in.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
        self.links += [value or "" for name, value in attrs if name in {"href", "src"}]

    def handle_endtag(self, tag: str) -> None:
        assert self._in.pop() == tag, f"{tag} ends where it should not"

    def handle_data(self, data: str) -> None:
        if "script" in self._in:
            self.scripts.append(data)
        elif "style" not in self._in:
            self.text += data
            if "td" in self._in:
                self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def page(finished: Path) -> Page:
    return Page((finished / "report.html").read_text(encoding="utf-8"))


def records_of(folder: Path) -> list[dict[str, str]]:
    header, *lines = (folder / "sequences.tsv").read_text().splitlines()
    return [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]


def test_counts_are_those_of_the_tables(page: Page, finished: Path) -> None:
    calls = Counter(row["call"] for row in records_of(finished))
    statuses = Counter(row["status"] for row in records_of(finished))
    text = " ".join(page.text.split())
    assert f"{calls['virus']} of {calls.total()} records are viral" in text
    for status in ("no_orf", "too_short", "ambiguous_only", "empty"):
        (row,) = [row for row in page.rows if row[:1] == [status]]
        assert row[1] == str(statuses[status])
    assert "chunks of 300 nt" in text
    assert "Demo model, not for science" in text


def test_every_viral_record_is_listed_best_first(page: Page, finished: Path) -> None:
    viral = [row for row in records_of(finished) if row["call"] == "virus"]
    listed = [row for row in page.rows if len(row) == 9 and row[0].isdigit()]
    assert {row[1] for row in listed} == {row["sequence_id"] for row in viral}
    by_id = {row["sequence_id"]: row for row in viral}
    for number, name, length, viral_chunks, called, *_ in listed:
        told = by_id[name]
        assert [number, length, viral_chunks, called] == [
            told[key] for key in ("record", "length", "viral_chunks", "called_chunks")
        ]
    keys = [(-int(row[3]), -float(by_id[row[1]]["max_virus_score"]), int(row[0])) for row in listed]
    assert keys == sorted(keys)


def test_names_of_the_input_stay_text(page: Page) -> None:
    assert set(HOSTILE) & {row[1] for row in page.rows if len(row) == 9}, (
        "some of them are viral, or this tests nothing"
    )
    assert page.tags["img"] == 0
    assert page.tags["script"] == 3, "data, Plotly, and the page's own"
    assert not any("hacked" in script for script in page.scripts)
    assert all(link.startswith(("#", "viral.fasta", "sequences.tsv")) for link in page.links)
    assert not re.search(r"https?://", "".join(link for link in page.links))


def test_charts_hold_what_the_tables_hold_and_no_text_of_the_input(page: Page, finished: Path) -> None:
    plotted = json.loads(page.scripts[0])
    records = [row for row in records_of(finished) if row["call"] != "NA"]
    drawn = sum(sum(trace["y"]) for trace in plotted["charts"]["record-scores"]["data"])
    assert drawn == len(records)
    chunks = pq.read_table(finished / "predictions.parquet")
    called = sum(call is not None for call in chunks["call"].to_pylist())
    assert sum(sum(trace["y"]) for trace in plotted["charts"]["chunk-scores"]["data"]) == called
    by_length = [trace for trace in plotted["charts"]["lengths"]["data"] if trace["type"] == "bar"]
    # Shorter than ten bases counts as ten.
    assert sum(sum(trace["y"]) for trace in by_length) == len(records_of(finished))
    assert "read_" not in page.scripts[0]


def test_tracks_are_the_chunks_of_their_records(page: Page, finished: Path) -> None:
    plotted = json.loads(page.scripts[0])
    contigs = [row for row in records_of(finished) if int(row["chunks"]) > 1 and row["call"] != "NA"]
    assert len(plotted["tracks"]) == len(contigs)
    chunks = pq.read_table(finished / "predictions.parquet").to_pylist()
    by_record = {row["record"]: [chunk for chunk in chunks if str(chunk["record"]) == row["record"]] for row in contigs}
    starts = sorted([chunk["start"] for chunk in group] for group in by_record.values())
    assert sorted(track["start"] for track in plotted["tracks"]) == starts
    whole = next(iter(by_record.values()))
    track = next(
        one for one in plotted["tracks"] if len(one["start"]) == len(whole) and one["end"][-1] == whole[-1]["end"]
    )
    for row, frame in enumerate(plotted["frames"]):
        told = [None if (score := chunk[f"virus_score_{frame}"]) is None else round(score, 4) for chunk in whole]
        assert track["frames"][row] == told


def test_what_run_json_says_is_what_the_report_says(changed: Callable[..., Path]) -> None:
    """No figure is typed by hand: another one in the record is another one in the report."""

    def edit(run: dict) -> None:
        run["counts"]["calls"]["records"]["virus"] = 123456
        run["figures"]["tokens_per_second"] = 7654321.0
        run["figures"]["stages"]["ESM-2"]["seconds"] = 4321.5
        run["warnings"] = ["watch out for <b>this</b>"]
        run["command"] = ["virnucpro-pl", "predict", "input=a b.fa"]
        run["model"]["head"]["tested"] = {"250": {"chunks": 77, "recall": 0.625, "false_positive_rate": 0.0125}}

    folder = changed(edit)
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    text = " ".join(page.text.split())
    for told in (
        "123,456 of", "7,654,321 tokens/s", "Watch out for <b>this</b>.", "virnucpro-pl predict 'input=a b.fa'",
        "62.5 %", "1.2 %",
    ):  # fmt: skip
        assert told in text, told
    assert 4321.5 in json.loads(page.scripts[0])["charts"]["stages"]["data"][0]["x"]


def test_the_report_is_the_same_each_time(cli: Cli, finished: Path) -> None:
    before = (finished / "report.html").read_bytes()
    assert cli("report", f"output={finished}").code == 0
    assert (finished / "report.html").read_bytes() == before
    assert len(before) < 10 * 2**20


def test_large_runs_are_cut_and_say_so(finished: Path) -> None:
    data = gathering.gather(finished, most_records=3, most_tracks=2, most_points=5, named=[])
    whole = gathering.gather(finished, most_records=500, most_tracks=40, most_points=1000, named=[])
    assert data.top.to_pylist() == whole.top.slice(0, 3).to_pylist()
    assert (data.record_scores == whole.record_scores).all()
    assert [track.step for track in data.tracks] == [-(-track.num_chunks // 5) for track in data.tracks]
    for track in data.tracks:
        full = next(one for one in whole.tracks if one.record == track.record).chunks["start"].to_pylist()
        assert track.chunks["start"].to_pylist() == full[:: track.step]
        assert len(track.chunks) <= 5


@pytest.mark.parametrize(
    ("input_text", "told"),
    [("", "The input holds no records"), (f">a\n{'TAATTAATTAA' * 20}\n", "None of them could be called")],
)
def test_nothing_found_is_a_report_too(cli: Cli, tmp_path: Path, input_text: str, told: str) -> None:
    (tmp_path / "in.fa").write_text(input_text)
    result = cli("predict", f"input={tmp_path / 'in.fa'}", f"output={tmp_path / 'out'}", "trainer.accelerator=cpu")
    assert result.code == 0, result.err
    text = " ".join(Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8")).text.split())
    assert told in text
    assert "No record is viral" in text


def test_figures_for_papers(cli: Cli, finished: Path) -> None:
    result = cli("report", f"output={finished}", "format=png,svg")
    assert result.code == 0, result.err
    for name in ("scores", "lengths", "tracks"):
        assert (finished / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    drawing = (finished / "figures" / "tracks.svg").read_text()
    assert "virus score" in drawing, "text is text, to be edited"
    before = (finished / "figures" / "tracks.svg").read_bytes()
    assert cli("report", f"output={finished}", "format=svg").code == 0
    assert (finished / "figures" / "tracks.svg").read_bytes() == before


def test_records_are_drawn_by_name(cli: Cli, finished: Path) -> None:
    assert cli("report", f"output={finished}", "format=svg", "records=[contig_2,read_3]").code == 0
    drawing = (finished / "figures" / "tracks.svg").read_text()
    assert drawing.index("contig_2") < drawing.index("read_3")
    assert "contig_1" not in drawing
    result = cli("report", f"output={finished}", "format=svg", "records=nobody")
    assert result.code == 2
    assert "nobody not among the records" in result.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "output: give the folder of a finished predict"),
        (["output=NOWHERE"], "no results here"),
        (["output=FINISHED", "format=gif"], "format=gif: choose from html, png, svg, pdf"),
    ],
)
def test_mistakes_are_told_in_one_line(cli: Cli, finished: Path, tmp_path: Path, words: list[str], told: str) -> None:
    filled = [word.replace("NOWHERE", str(tmp_path)).replace("FINISHED", str(finished)) for word in words]
    result = cli("report", *filled)
    assert result.code == 2
    assert told in result.err
    assert len(result.err.splitlines()) == 1


def test_a_run_of_an_older_version_is_told(changed: Callable[..., Path], cli: Cli) -> None:
    folder = changed(lambda run: run.pop("directory"))
    result = cli("report", f"output={folder}")
    assert result.code == 2
    assert "run.json: directory is missing; it is damaged or of another version" in result.err


def test_a_table_that_was_changed_is_told(changed: Callable[..., Path], cli: Cli) -> None:
    folder = changed(lambda run: None)
    (folder / "sequences.tsv").write_text("some\tother\ttable\n1\t2\t3\n")
    result = cli("report", f"output={folder}")
    assert result.code == 1
    assert "sequences.tsv: missing or changed since it was written" in result.err
    (folder / "sequences.tsv").unlink()
    assert "sequences.tsv: missing or changed" in cli("report", f"output={folder}").err


def test_pyarrow_reads_our_own_table_as_we_do(finished: Path) -> None:
    read = sum(len(batch) for batch in gathering.record_batches(finished / "sequences.tsv"))
    assert read == len(records_of(finished))
