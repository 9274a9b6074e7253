"""Write the packaged sample and the model card, ``sample.fasta.gz`` and ``README.md`` in ``src/virnucpro_pl/demo``.

    python tools/make_demo.py --biopython DIR --data DIR --metrics metrics.json --train run.json --kmers kmers.txt

``--biopython`` is the unpacked source distribution of biopython 1.88, the source of the sample's records. ``--data`` is
a folder with ``viral/*.fa.gz``, ``nonviral/*.fa.gz`` and a ``MANIFEST.tsv`` that names their sources. The others are
what the commands of the card have written: ``test``, ``train``, and ``benchmarks/kmer_baseline.py``.
"""

import argparse
import csv
import gzip
import json
import random
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from Bio import SeqIO

SEED = 300
NAMES = {True: "viral", False: "non-viral"}
TOOLS = Path(__file__).parent
DEMO = TOOLS.parent / "src" / "virnucpro_pl" / "demo"


class Source(NamedTuple):
    """A sequence in biopython's distribution, and what of it goes into the sample."""

    file: str
    accession: str
    organism: str
    is_viral: bool
    title: str
    length: int | None = None
    """First bases to take; None takes all, 0 none"""
    num_reads: int = 0
    reads_from: int = 0
    """Reads are cut behind this many bases"""


# Titles are those of the GenBank records, shortened; organisms are checked against the files.
SOURCES = (
    Source("GFF/NC_001422.gbk", "NC_001422.1", "Coliphage phiX174", True, "complete genome", None, 3),
    Source("GFF/NC_001802.fna", "NC_001802.1", "Human immunodeficiency virus type 1", True, "complete genome", None, 4),
    Source("GenBank/gbvrl1_start.seq", "AB000048.1", "Feline panleukopenia virus", True,
           "nonstructural protein 1, cds"),
    Source("GenBank/gbvrl1_start.seq", "AB000049.1", "Feline panleukopenia virus", True, "NS1, cds", 0, 2),
    Source("GenBank/gbvrl1_start.seq", "AB000050.1", "Feline panleukopenia virus", True, "capsid protein 2, cds"),
    Source("GenBank/EU851978.gbk", "EU851978.1", "Influenza A virus", True, "A/Wisconsin/36/2007(H1N1) segment 4, HA"),
    Source("GenBank/HM138502.gbk", "HM138502.1", "Influenza A virus", True, "A/California/07/2009(H1N1) segment 6, NA"),
    Source("GenBank/KF527485.gbk", "KF527485.1", "Influenza A virus", True,
           "A/California/07/2009(H1N1) segment 5, NP", None, 3),
    Source("GenBank/NC_005816.gb", "NC_005816.1", "Yersinia pestis", False,
           "plasmid pPCP1, complete sequence", None, 1),
    Source("GenBank/NC_000932.gb", "NC_000932.1", "Arabidopsis thaliana", False, "chloroplast", 30_000, 3, 60_000),
    Source("GenBank/arab1.gb", "AC007323.5", "Arabidopsis thaliana", False,
           "chromosome I BAC T25K16", 20_000, 2, 40_000),
    Source("GenBank/extra_keywords.gb", "AL138972.1", "Drosophila melanogaster", False,
           "BAC clone BACR25B3", 25_000, 3, 60_000),
    Source("GenBank/negative_location.gb", "AB070938.1", "Streptomyces avermitilis", False,
           "melanin gene cluster", None, 1),
    Source("EMBL/SC10H5.embl", "AL031232", "Streptomyces coelicolor", False, "cosmid 10H5"),
    Source("GenBank/GU949562.1.gb", "GU949562.1", "Shewanella sp.", False,
           "MAR_280_P06_2010-01-20 16S rRNA gene, partial"),
    Source("GenBank/noref.gb", "NM_006141.1", "Homo sapiens", False,
           "dynein light intermediate polypeptide 2 mRNA", None, 1),
    Source("GenBank/iro.gb", "AL109817.1", "Homo sapiens", False, "insert cDNA clone EUROIMAGE 125195"),
    Source("GenBank/one_of.gb", "U18266.1", "Homo sapiens", False, "thymopoietin (TMPO) gene, exon 1", None, 1),
    Source("GenBank/pri1.gb", "U05344.1", "Homo sapiens", False, "GLUT5 gene, promoter and exon 1"),
    Source("EMBL/TRBG361.embl", "X56734.1", "Trifolium repens", False, "non-cyanogenic beta-glucosidase mRNA"),
    Source("GenBank/cor6_6.gb", "X62281.1", "Arabidopsis thaliana", False, "kin2 gene"),
)  # fmt: skip
SHORTEST_READ, LONGEST_READ = 150, 300


class Entry(NamedTuple):
    """One record of the sample."""

    name: str
    source: Source
    place: str
    letters: str
    kind: str


# --- the sample


def sample_entries(biopython: Path) -> list[Entry]:
    """Cut the records of the sample, genomes and pieces first, reads last."""
    rng = random.Random(SEED)
    whole, reads = [], []
    for source in SOURCES:
        letters = read_source(biopython / "Tests" / source.file, source)
        length = len(letters) if source.length is None else source.length
        if length:
            is_piece = length < len(letters)
            name = f"{source.accession}:1-{length}" if is_piece else source.accession
            kind = "piece" if is_piece else "whole record"
            whole.append(Entry(name, source, f"1-{length}", letters[:length], kind))
        reads += [cut_read(letters, source, rng) for _ in range(source.num_reads)]
    return whole + reads


def read_source(path: Path, source: Source) -> str:
    """Return the letters of one record, after checking that it is what the table says."""
    file_format = {".embl": "embl", ".fna": "fasta"}.get(path.suffix, "genbank")
    found = [r for r in SeqIO.parse(path, file_format) if source.accession.split(".")[0] in r.id]
    letters = str(found[0].seq).upper()
    described = f"{found[0].description} {found[0].annotations.get('organism', '')}".lower()
    if source.organism.split(" sp.")[0].lower() not in described or set(letters) - set("ACGTRYSWKMBDHVN"):
        raise ValueError(f"{path}: {source.accession} is not the {source.organism} sequence expected")
    return letters


def cut_read(letters: str, source: Source, rng: random.Random) -> Entry:
    """Cut a read at random, from either strand; ranges of the reverse strand are written as NCBI does, c200-51."""
    length = rng.randint(SHORTEST_READ, LONGEST_READ)
    start = rng.randint(source.reads_from, len(letters) - length)
    read, place = letters[start : start + length], f"{start + 1}-{start + length}"
    if rng.random() < 0.5:
        read = read.translate(str.maketrans("ACGTRYKMBDHV", "TGCAYRMKVHDB"))[::-1]
        place = f"c{start + length}-{start + 1}"
    return Entry(f"{source.accession}:{place}", source, place, read, "read")


def write_sample(entries: Sequence[Entry], path: Path) -> None:
    """Write gzipped FASTA that holds no time and no name."""
    text = ""
    for entry in entries:
        title = f"{entry.source.organism} {entry.source.title}" + (", read" if entry.kind == "read" else "")
        text += f">{entry.name} {title}\n" + "\n".join(textwrap.wrap(entry.letters, 70)) + "\n"
    path.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


# --- the model card

COMMANDS = """\
# In a folder with the data's viral/ and nonviral/ and tools/demo_genomes.tsv
for length in 150 300 500; do
    virnucpro-pl prepare input=demo_genomes.tsv output=test$length data.chunk_length=$length data.max_per_group=600 \\
        data.balance=false
done
virnucpro-pl prepare input=demo_genomes.tsv output=train data.chunk_length=150-500 data.depth=12 \\
    data.max_per_group=12000
python tools/demo_encoders.py test300 untrained --layers 1
virnucpro-pl train input=train output=head split.by=split split.shared=drop fine_tuning=full fine_tuning.lr=0.001 \\
    optimizer=adamw optimizer.lr=0.001 optimizer.weight_decay=0.05 scheduler=cosine batch_size=512 \\
    trainer.max_epochs=15 trainer.deterministic=false trainer.gradient_clip_val=1.0 model.head.hidden_dim=128 \\
    model.dna_encoder.weights=untrained/DNABERT-S model.protein_encoder.weights=untrained/esm2.pt
virnucpro-pl test 'input=[test150,test300,test500]' output=test model.head.weights=head/head.safetensors \\
    model.dna_encoder.weights=head/dna_encoder model.protein_encoder.weights=head/protein_encoder.pt
python benchmarks/kmer_baseline.py train head/split.json test150 test300 test500 --against test/metrics.json
"""

CARD = """\
# Packaged sample and demo model

**This is a demo model, not for science.** It is tiny, it has seen {num_training} viral ORFs of a handful of families,
and its calls are often wrong. It is here so that the program can be tried without a download.

The weights are those of the commands below, on one H100; a GPU adds numbers in any order, so a second run differs in
the last digits. The sample and this page are written by `tools/make_demo.py`; `sample.sequences.tsv` is what `predict`
then finds in it.

## How good it is

On genomes of families (viruses) and genera (others) that it never saw, chunks with at least one ORF:

{figures}

Intervals are 95 %, by resampling whole families and genera; there are few, so they are wide. In the last columns is
what logistic regression on 4-mers of the same chunks gets (`benchmarks/kmer_baseline.py`). Of all viral fragments
{share_virus:.0%} have an ORF, of the others {share_others:.0%}; the rest cannot be scored.

At a score of 0.5 the model finds {recall:.0%} of the viral chunks and calls {fpr:.0%} of the others viral. Its scores
were divided by a temperature of {temperature:.2f}, fitted on the validation part. Of nine settings of size, learning
rate, noise and examples per group, this one had the highest AUROC on its validation part; the test part was looked at
for all nine, but decided nothing.

{groups}

## What it is

| file | format | content |
| --- | --- | --- |
| `DNABERT-S/` | as zhihan1996/DNABERT-S | {sizes_dna} |
| `esm2_t1_demo_UR50D.pt` | fair-esm, half precision | {sizes_protein} |
| `esm2_t1_demo_UR50D-contact-regression.pt` | fair-esm | random; fair-esm asks for it |
| `head.safetensors`, `head.json` | of `train` and `test` | both embeddings to 128 to 2; trained on 150 to 500 nt |

Both encoders were trained from scratch, together with the head:

```bash
{commands}```

## Sample: `sample.fasta.gz`

{num_records} records, {num_bases} bases, all real: GenBank, RefSeq and EMBL records, as they lie in the source
distribution of biopython 1.88 (folder `Tests`). INSDC and NCBI place no restriction on the use of such records, which
are public; the distribution has the Biopython and BSD 3-clause licences. Ranges are those of the record, counted from
1; `c` marks the reverse strand. Reads were cut at random places (seed {seed}), so some have no open frame. None of
their virus families and none of their species was trained on.

{sample}

## Genomes

No sequence of them is part of this package. All accessions, the first words of their headers, are in `accessions.tsv`.

{provenance}
"""


class Record(NamedTuple):
    """What the commands have written."""

    metrics: dict[str, Any]
    training: dict[str, Any]
    kmers: dict[str, str]


def read_kmers(path: Path) -> dict[str, str]:
    """Return AUROC with interval by length, of what the baseline printed."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines()[2:]:
        cells = line.split()
        found[cells[0]] = f"{cells[2]} {' '.join(cells[3:6])}"
    return found


def card(entries: Sequence[Entry], record: Record, data: Path) -> str:
    """Write out the card."""
    metrics, overall = record.metrics, record.metrics["overall"]
    shares = metrics["share_with_orf"]
    return CARD.format(
        num_training=f"{record.training['split']['train']['virus']:,}", figures=figures_table(record),
        share_virus=shares["virus"], share_others=shares["others"], recall=overall["recall"],
        fpr=overall["false_positive_rate"], temperature=metrics["temperature"], groups=groups_table(metrics),
        sizes_dna="1 layer, width 64, 4 heads, 512 tokens, trained",
        sizes_protein="1 layer, width 64, 4 heads, trained", commands=COMMANDS, num_records=len(entries),
        num_bases=f"{sum(len(entry.letters) for entry in entries):,}", seed=SEED, sample=sample_table(entries),
        provenance=provenance_table(data),
    )  # fmt: skip


def figures_table(record: Record) -> str:
    """Figures by length, beside those of k-mers."""
    rows = []
    for length, one in [*record.metrics["by_length"].items(), ("all", record.metrics["overall"])]:
        low, high = one["intervals"]["auroc"]
        auroc = f"**{one['auroc']:.3f}** ({low:.3f} to {high:.3f})"
        rows.append((length, f"{one['chunks']:,}", auroc, f"{one['average_precision']:.3f}", record.kmers[length]))
    return table(["nt", "chunks", "AUROC", "average precision", "AUROC of 4-mers"], rows)


def groups_table(metrics: dict[str, Any]) -> str:
    """Return the calls by group of the test part."""
    rows = [
        (
            one["group"],
            one["class"],
            f"{one['chunks']:,}",
            f"{one['mean_score']:.2f}",
            f"{one['share_called_viral']:.0%}",
        )
        for one in metrics["by_group"]
    ]
    return table(["held-out group", "class", "chunks", "mean score", "called viral"], rows)


def genomes() -> list[dict[str, str]]:
    """Rows of the table that ``prepare`` reads."""
    lines = [line for line in (TOOLS / "demo_genomes.tsv").read_text(encoding="utf-8").splitlines() if line[0] != "#"]
    return list(csv.DictReader(lines, delimiter="\t"))


def provenance_table(data: Path) -> str:
    """List where the genomes are from, and what they were used for."""
    with (data / "MANIFEST.tsv").open(encoding="utf-8", newline="") as stream:
        manifest = {row["file"]: row for row in csv.DictReader(stream, delimiter="\t")}
    rows = []
    for row in genomes():
        source = manifest[row["file"]]
        names = shortened(accessions(data / row["file"]))
        repository = f"{source['source_repo']} @ {source['source_commit']}"
        rows.append((row["split"], row["class"], row["group"], names, repository, source["licence"]))
    rows.sort(key=lambda row: ("train", "validation", "test").index(row[0]))
    return table(["part", "class", "group", "accessions", "GitHub repository it was taken from", "licence there"], rows)


def accessions(path: Path) -> list[str]:
    """First words of the headers of a file."""
    with gzip.open(path, "rt", encoding="utf-8", errors="replace") as stream:
        return [line[1:].split(None, 1)[0] for line in stream if line.startswith(">")]


def shortened(names: list[str]) -> str:
    """Name some; of many, the first ones and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 6 else ""
    return ", ".join(f"`{name}`" for name in (names[:5] if more else names)) + more


def sample_table(entries: Sequence[Entry]) -> str:
    """List all records of the sample."""
    rows = [
        (f"`{e.name}`", e.source.organism, e.source.title, NAMES[e.source.is_viral], e.kind, e.place, len(e.letters),
         f"`Tests/{e.source.file}`")
        for e in entries
    ]  # fmt: skip
    return table(["record", "organism", "what", "class", "cut", "range", "nt", "file in biopython 1.88"], rows)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lay out a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def main() -> None:
    """Write the sample and the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("biopython", "data", "metrics", "train", "kmers"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    asked = parser.parse_args()
    entries = sample_entries(asked.biopython)
    write_sample(entries, DEMO / "sample.fasta.gz")
    metrics, training = (json.loads(path.read_text(encoding="utf-8")) for path in (asked.metrics, asked.train))
    text = card(entries, Record(metrics, training, read_kmers(asked.kmers)), asked.data)
    (DEMO / "README.md").write_text(text, encoding="utf-8")
    rows = [
        f"{row['split']}\t{row['file']}\t{name}" for row in genomes() for name in accessions(asked.data / row["file"])
    ]
    (DEMO / "accessions.tsv").write_text("\n".join(["part\tfile\taccession", *rows]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
