"""F2, F3: letters that are no nucleotides are counted, placed and marked, and never begin a record of their own."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support import read_table
from virnucpro_pl.errors import UserError
from virnucpro_pl.host.stage_clock import StageClock
from virnucpro_pl.sequence import records as records_module
from virnucpro_pl.sequence.records import InputFacts, read_records
from virnucpro_pl.sequence.store import STATUSES, OrfStore, StoreSettings, prepare_store

PLAIN = {*"ACGTUNRYSWKMBDHVacgtunryswkmbdhv-.*"}
DNA = "ACGTTGCAAC" * 30
PROTEIN = "MKTFFLQILPEWAYCDSTVNGHRKELIFPQEMKTFFLQILPEWAYCDSTVNGHRKELIFPQE"


def facts_of(content: bytes, block_bytes: int = 1 << 20) -> InputFacts:
    facts = InputFacts()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records_module, "BLOCK_BYTES", block_bytes)
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        for _ in read_records("-", facts):
            pass
    return facts


letters = st.text("ACGTN-acgtEFQ1\0<#@", max_size=10)
records = st.lists(st.lists(letters, max_size=4), min_size=1, max_size=5)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(
    records, st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from(["", "\n\n", "# comment\n;\n"]), st.integers(1, 30)
)
@example([["AC", "G", "Q"]], "\r\n", "", 7)
def test_letters_of_fasta_are_counted_and_placed_as_by_a_reader_line_by_line(
    records: list[list[str]], end: str, start: str, block_bytes: int
) -> None:
    """F3: whatever the line ends and wherever blocks end."""
    lines = [line for number, record in enumerate(records) for line in (f">r{number}", *record)]
    text = start.replace("\n", end) + end.join(lines) + end
    total = odd = 0
    marked: set[int] = set()
    first = None
    for number, record in enumerate(records):
        found = [letter for line in record for letter in line if letter not in PLAIN]
        total, odd = total + sum(map(len, record)), odd + len(found)
        if found:  # records of up to 40 letters
            marked.add(number)
    line_number = start.count("\n")
    record_number = 0
    for line in lines:
        line_number += 1
        if line.startswith(">"):
            record_number += 1
        elif first is None and any(letter not in PLAIN for letter in line):
            first = {"record": record_number, "name": f"r{record_number - 1}", "line": line_number}
    counts = facts_of(text.encode(), block_bytes).as_dict()
    assert counts["letters"] == total
    if first is None:
        assert "no_nucleotides" not in counts
    else:
        told = counts["no_nucleotides"]
        assert (told["letters"], told["records"], told["first"]) == (odd, len(marked), first)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(st.lists(letters, min_size=1, max_size=6), st.sampled_from(["", "\n\n"]), st.integers(1, 30))
def test_letters_of_fastq_are_counted_and_placed_too(sequences: list[str], start: str, block_bytes: int) -> None:
    text = start + "".join(f"@r{n}\n{s}\n+\n{'I' * len(s)}\n" for n, s in enumerate(sequences))
    counts = facts_of(text.encode(), block_bytes).as_dict()
    odd = [sum(letter not in PLAIN for letter in sequence) for sequence in sequences]
    assert counts["letters"] == sum(map(len, sequences))
    if any(odd):
        place = next(number for number, count in enumerate(odd) if count)
        first = {"record": place + 1, "name": f"r{place}", "line": start.count("\n") + 4 * place + 2}
        assert (counts["no_nucleotides"]["letters"], counts["no_nucleotides"]["first"]) == (sum(odd), first)
    else:
        assert "no_nucleotides" not in counts


@pytest.mark.parametrize(
    ("content", "line", "name"),
    [
        (b">one\nACGT\nACGT>two\nGG\n", 3, "one"),
        (b">one\r\nACGT\r\nACGT>two x\r\nGG\r\n", 3, "one"),
        (b">one\n" + b"A" * 60 + b">two\nGG\n", 2, "one"),
        (b"\n>zero\nAC\n>one\nACGT\n >two\nGG\n", 6, "one"),
        (b">one\nAC\n<html><body>502</body></html>\n", 3, "one"),
    ],
    ids=["joined", "joined, Windows", "a full line of viral.fasta", "indented", "web page"],
)
def test_a_header_within_a_sequence_is_refused_with_its_line(content: bytes, line: int, name: str) -> None:
    """F2: it would be taken for letters, and begin a record of its own where viral.fasta is wrapped."""
    for block_bytes in (1, 2, 3, 7, 64, 1 << 20):
        with pytest.raises(UserError, match=rf"damaged FASTA: line {line}: '>' within the sequence of .*\('{name}'\)"):
            facts_of(content, block_bytes)


def test_a_header_within_a_read_of_fastq_is_refused_too() -> None:
    with pytest.raises(UserError, match="the sequence of 'one' holds '>'"):
        facts_of(b"@one\nAC>two\n+\nIIIIII\n")


def test_a_header_may_hold_the_sign_itself() -> None:
    assert facts_of(b">one>two > three\nACGT\n").as_dict()["letters"] == 4


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., OrfStore]:
    def build(text: str, **settings) -> OrfStore:
        path = tmp_path / "input.fa"
        path.write_text(text)
        return OrfStore(prepare_store([str(path)], tmp_path / "store", StoreSettings(300, **settings), StageClock()))

    return build


def statuses(store: OrfStore, name: str) -> list[str]:
    return [STATUSES[status] for status in read_table(store.folder / f"{name}.arrow")["status"].to_pylist()]


@pytest.mark.parametrize(
    ("letters", "status"),
    [
        (DNA[:150], "called"),
        (DNA[:100] + "RYSWKMBDHVN-.*u" + DNA[:50], "called"),
        ("N" * 100, "ambiguous_only"),
        (PROTEIN, "not_nucleotides"),
        ("61 " + DNA[:60] + "\n121 " + DNA[:60], "not_nucleotides"),
        (DNA[:90] + "\0" * 60 + DNA[:90], "not_nucleotides"),
        (DNA[:150] + "\n@two\n" + DNA[:150] + "\n+\n" + "I" * 150, "not_nucleotides"),
        (DNA[:150] + "\n{'error': 502}", "not_nucleotides"),
        (DNA * 10 + "EF", "called"),  # below 0.1 %
        (DNA * 10 + "EFEF", "not_nucleotides"),
    ],
    ids=["DNA", "IUPAC and gaps", "N", "protein", "numbered", "NUL", "FASTQ", "JSON", "two of 3,002", "four of 3,004"],
)  # fmt: skip
def test_records_of_other_letters_are_marked_with_all_their_chunks(build, letters: str, status: str) -> None:
    """F3."""
    store = build(f">other\n{letters}\n>dna\n{DNA * 40}\n")
    assert statuses(store, "records") == [status, "called"]
    chunks = read_table(store.folder / "chunks.arrow")
    of_first = [STATUSES[one["status"]] for one in chunks.to_pylist() if one["record"] == 0]
    assert (set(of_first) == {"not_nucleotides"}) == (status == "not_nucleotides")
    assert store.manifest["record_status"]["not_nucleotides"] == (status == "not_nucleotides")


def test_marks_change_no_orf(build) -> None:
    """F3: scores stay as published, for whoever asks for them."""
    text = f">p\n{PROTEIN}\n>n\n12{DNA}\n>d\n{DNA}\n"
    marked, published = build(text), build(text, alphabet="any")
    for name in ("nucleotides", "protein", "frame", "chunk"):
        first, second = (read_table(store.folder / "orfs.arrow")[name] for store in (marked, published))
        assert first.equals(second)
    assert "not_nucleotides" not in statuses(published, "records")


def test_a_file_of_other_letters_is_refused_unless_asked_for(build) -> None:
    """F3: more than half of them; half is read."""
    text = ">a\nACGT\n>b\n" + "EFILPQ" * 5 + "\n"
    with pytest.raises(
        UserError, match=r"input.fa: 30 of 34 letters \(88.24%\) are no nucleotides \(E F I L P Q\), the"
    ) as caught:
        build(text)
    assert "line 4, record 2 (b)" in str(caught.value)
    assert "data.alphabet=any" in str(caught.value)
    assert statuses(build(text, alphabet="any"), "records") == ["called", "ambiguous_only"]
    assert statuses(build(">b\nACGTEFIL\n"), "records") == ["not_nucleotides"]


def test_an_unknown_alphabet_is_refused(build) -> None:
    with pytest.raises(UserError, match=r"data.alphabet=dna: choose one of iupac, any"):
        build(">a\nACGT\n", alphabet="dna")


def test_a_fallback_head_gets_no_chunk_of_other_letters(build) -> None:
    """F3: a chunk that is not called is not scored as a whole either."""
    stopped = "TTAATTAATTAA" * 10
    store = build(f">p\n{stopped}EF\n>d\n{stopped}\n", whole_chunks=True)
    assert statuses(store, "records") == ["not_nucleotides", "dna_only"]
    assert store.manifest["whole_chunks"] == 1
