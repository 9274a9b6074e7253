"""Make the packaged sample and the demo model, all of ``src/virnucpro_pl/demo``.

    python tools/make_demo.py --biopython DIR --data DIR

``--biopython`` is the unpacked source distribution of biopython 1.88, the source of the sample's records. ``--data`` is
a folder with ``viral/*.fa.gz``, ``nonviral/*.fa.gz`` and a ``MANIFEST.tsv`` that names their sources, the genomes the
tokenizer and the head are fitted to. The encoders are random, with a fixed seed. On one machine a second run gives the
same bytes; on another the head may differ in its last digits. Takes one to two minutes on two cores.

Run it as a script, as shown: published heads are pickled as ``__main__.MLPClassifier``, and so is this one.
"""

import argparse
import copy
import csv
import gzip
import json
import random
import textwrap
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from Bio import SeqIO
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_auroc

from virnucpro_pl.encoders.dnabert_s import DnabertS, DnaTokenizer
from virnucpro_pl.encoders.esm2 import Esm2, protein_tokenizer
from virnucpro_pl.encoders.packed import pack
from virnucpro_pl.sequence.chunks import cut_records
from virnucpro_pl.sequence.records import read_records
from virnucpro_pl.sequence.translation import find_orfs
from virnucpro_pl.weights.checkpoints import read_file
from virnucpro_pl.weights.convert import load_dnabert_s, load_esm2, load_head

SEED = 300
CHUNK_LENGTH = 300
WIDTH, LAYERS, HEADS = 64, 2, 4
DNA_FFN_WIDTH, VOCABULARY = 64, 256
GAIN = 1.0  # standard deviation of the random weights times the square root of their inputs
HIDDEN = 512
ORFS_PER_FILE = 400
SHARED_LETTERS = 24  # an ORF with a stretch this long in common with the sample is left out
EPOCHS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 20, 512, 1e-3, 0.05
NAMES = {True: "viral", False: "non-viral"}
SPECIAL_TOKENS = {"unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "mask": "[MASK]"}
DEMO = Path(__file__).parents[1] / "src" / "virnucpro_pl" / "demo"


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

# What is neither named here nor excluded is trained on. Relatives stay on one side: families of viruses, and species.
VALIDATION = {
    "nextclade_marburg", "nextclade_ebola_zaire", "nextclade_ebola_sudan", "broad_ebolavirus20", "nextclade_rubella",
    "broad_orungo_reovirus", "nextclade_vzv_hhv3", "broad_hhv3_contigs", "kraken2_Lambda", "vibrant_autolyki",
    "archaea_Methanohalophilus_region", "bacteria_P_marinus_part", "mouse_chr17_178k", "worm_C_elegans",
    "pprmeta_plasmid100", "vibrant_no_phages3",
}  # fmt: skip
TEST = {
    "nextclade_measles", "nextclade_mumps", "artic_nipah6", "broad_lassa_ambig_contigs", "pharokka_crAss_table15",
    "viralm_test3", "bacteria_Blochmannia", "bacteria_B_henselae", "cow_chr25_156k", "mito_Ascaris",
}  # fmt: skip
EXCLUDED = {
    "phanotate_phiX174": "in the sample", "pharokka_microvirus100": "family of phiX174",
    "vibrant_mixed_viral4": "holds a relative of phiX174", "kraken2_HIV_1": "in the sample",
    "kraken2_HIV_2": "genus of HIV-1", "viralmsa_hiv100": "HIV-1", "kraken2_FluA_H1N1": "species in the sample",
    "kraken2_FluA_H2N2": "species in the sample", "kraken2_FluA_H3N2": "species in the sample",
    "kraken2_FluB": "family of influenza A", "virbot_rna_contigs12": "labelled by a tool, not by curators",
    "plant_chloroplast": "in the sample", "plasmid_pPCP1": "in the sample",
    "plant_arabidopsis": "species in the sample",
}  # fmt: skip


class Entry(NamedTuple):
    """One record of the sample."""

    name: str
    source: Source
    place: str
    letters: str
    kind: str


class OrfSet(NamedTuple):
    """ORFs of one file of genomes."""

    file: str
    role: str
    is_viral: bool
    nucleotides: list[bytes]
    proteins: list[bytes]
    num_shared: int
    """ORFs left out because they share a stretch with the sample"""


class MLPClassifier(nn.Module):
    """The published head; its pickle names this class, so its name and attributes are part of the format."""

    def __init__(self, num_inputs: int, hidden: int, num_classes: int):
        super().__init__()
        self.hidden_layer = nn.Linear(num_inputs, hidden)
        self.bn1 = nn.BatchNorm1d(hidden)
        self.dropout = nn.Dropout(0.5)
        self.output_layer = nn.Linear(hidden, num_classes)

    def forward(self, embedding: Tensor) -> Tensor:
        """(N, num_inputs) -> (N, num_classes) logits."""
        return self.output_layer(self.dropout(F.relu(self.bn1(self.hidden_layer(embedding)))))  # type: ignore[no-any-return]


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


# --- ORFs of genomes


def read_genomes(data: Path, entries: Sequence[Entry]) -> list[OrfSet]:
    """Sample ORFs of every file that is not excluded."""
    shared = stretches(entry.letters.encode() for entry in entries)
    shared |= stretches(entry.letters.translate(str.maketrans("ACGT", "TGCA"))[::-1].encode() for entry in entries)
    sets = []
    for path in sorted([*data.glob("viral/*.fa.gz"), *data.glob("nonviral/*.fa.gz")]):
        name = path.name.removesuffix(".fa.gz")
        if name not in EXCLUDED:
            role = "validation" if name in VALIDATION else "test" if name in TEST else "training"
            nucleotides, proteins = sample_orfs(path, np.random.default_rng([SEED, *name.encode()]))
            kept = [i for i, orf in enumerate(nucleotides) if shared.isdisjoint(stretches([orf]))]
            orfs = [nucleotides[i] for i in kept], [proteins[i] for i in kept]
            sets.append(OrfSet(name, role, path.parent.name == "viral", *orfs, len(nucleotides) - len(kept)))
    return sets


def stretches(texts: Iterator[bytes] | Sequence[bytes]) -> set[bytes]:
    """Collect all substrings of SHARED_LETTERS letters."""
    return {text[i : i + SHARED_LETTERS] for text in texts for i in range(len(text) - SHARED_LETTERS + 1)}


def sample_orfs(path: Path, rng: np.random.Generator) -> tuple[list[bytes], list[bytes]]:
    """Chunks of a file in random order, until they gave enough different ORFs: nucleotides and proteins."""
    chunks = []
    for block in read_records(str(path)):
        offset = np.cumsum(block.lengths) - block.lengths
        cut = cut_records(block.lengths, CHUNK_LENGTH)
        bounds = zip((offset[cut.record] + cut.start).tolist(), (offset[cut.record] + cut.end).tolist(), strict=True)
        chunks += [block.letters[start:end].upper() for start, end in bounds]
    order = rng.permutation(len(chunks))
    found: dict[bytes, bytes] = {}
    for first in range(0, len(order), ORFS_PER_FILE):
        some = [chunks[i] for i in order[first : first + ORFS_PER_FILE]]
        orfs = find_orfs(b"".join(some), np.array([len(chunk) for chunk in some]))
        found.update(zip(orfs.nucleotides, orfs.proteins, strict=True))
        if len(found) >= ORFS_PER_FILE:
            break
    return [*found][:ORFS_PER_FILE], [*found.values()][:ORFS_PER_FILE]


def sample_orf_set(entries: Sequence[Entry], is_viral: bool) -> OrfSet:
    """ORFs of the viral or the other records of the sample, as ``predict`` finds them."""
    letters = [entry.letters.encode() for entry in entries if entry.source.is_viral == is_viral]
    nucleotides, proteins = [], []
    for text in letters:
        cut = cut_records(np.array([len(text)]), CHUNK_LENGTH)
        chunks = [text[start:end] for start, end in zip(cut.start.tolist(), cut.end.tolist(), strict=True)]
        orfs = find_orfs(b"".join(chunks), cut.end - cut.start)
        nucleotides += orfs.nucleotides
        proteins += orfs.proteins
    return OrfSet("packaged sample", "sample", is_viral, nucleotides, proteins, 0)


# --- the encoders' files


def write_tokenizer(sequences: Sequence[bytes], folder: Path) -> None:
    """Train byte pairs and write them as the published tokenizer.json is written."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    texts = [text for sequence in sequences if not set(text := sequence.decode()) - set("ACGT")]
    special = list(SPECIAL_TOKENS.values())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=[*"ACGT"], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    write_json(folder / "tokenizer.json", tokenizer_content(trained["vocab"], trained["merges"]))
    write_json(folder / "special_tokens_map.json", {f"{k}_token": SPECIAL_TOKENS[k] for k in sorted(SPECIAL_TOKENS)})
    settings = {
        "clean_up_tokenization_spaces": True,
        "model_max_length": 1000000000000000019884624838656,
        "tokenizer_class": "PreTrainedTokenizerFast",
    } | {f"{kind}_token": token for kind, token in SPECIAL_TOKENS.items()}
    write_json(folder / "tokenizer_config.json", dict(sorted(settings.items())))


def tokenizer_content(vocabulary: dict[str, int], merges: list[list[str]]) -> dict[str, object]:
    """Give the published tokenizer.json other byte pairs."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    cls, first, sep = ({"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "[SEP]", "type_id": 0}})  # fmt: skip
    second = [{"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}]
    padding = {"strategy": {"Fixed": 2000}, "direction": "Right", "pad_to_multiple_of": None}
    model = {"type": "BPE", "dropout": None, "unk_token": "[UNK]", "continuing_subword_prefix": None}
    return {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 2000, "strategy": "LongestFirst", "stride": 0},
        "padding": padding | {"pad_id": 3, "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [{"id": i, "content": token} | flags for i, token in enumerate(SPECIAL_TOKENS.values())],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [cls, first, sep],
            "pair": [cls, first, sep, *second],
            "special_tokens": {t: {"id": t, "ids": [i], "tokens": [t]} for t, i in (("[CLS]", 1), ("[SEP]", 2))},
        },
        "decoder": None,
        "model": model
        | {"end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False}
        | {"vocab": dict(sorted(vocabulary.items(), key=lambda item: item[1])), "merges": [*map(" ".join, merges)]},
    }


def write_json(path: Path, content: dict[str, object]) -> None:
    """Write JSON as the published files have it."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")


class Random:
    """Random tensors under published names."""

    def __init__(self, seed: int):
        self.tensors: OrderedDict[str, Tensor] = OrderedDict()
        self._generator = torch.Generator().manual_seed(seed)

    def embedding(self, name: str, count: int) -> None:
        """Add rows with a standard deviation of 1."""
        self.tensors[f"{name}.weight"] = torch.randn(count, WIDTH, generator=self._generator)

    def linear(self, name: str, inputs: int, outputs: int, bias: bool = True) -> None:
        """Add a layer that keeps the size of what goes through, with a small bias."""
        self.tensors[f"{name}.weight"] = torch.randn(outputs, inputs, generator=self._generator) * GAIN * inputs**-0.5
        if bias:
            self.tensors[f"{name}.bias"] = torch.randn(outputs, generator=self._generator) * 0.1

    def norm(self, name: str) -> None:
        """Add a layer normalisation that has learned nothing."""
        self.tensors[f"{name}.weight"] = torch.ones(WIDTH)
        self.tensors[f"{name}.bias"] = torch.zeros(WIDTH)


def write_dnabert_s(folder: Path) -> None:
    """Write config.json and pytorch_model.bin of a tiny DNABERT-S."""
    made = Random(SEED)
    made.embedding("embeddings.word_embeddings", VOCABULARY)
    made.embedding("embeddings.token_type_embeddings", 2)
    made.norm("embeddings.LayerNorm")
    for layer in (f"encoder.layer.{i}" for i in range(LAYERS)):
        made.linear(f"{layer}.attention.self.Wqkv", WIDTH, 3 * WIDTH)
        made.linear(f"{layer}.attention.output.dense", WIDTH, WIDTH)
        made.norm(f"{layer}.attention.output.LayerNorm")
        made.linear(f"{layer}.mlp.gated_layers", WIDTH, 2 * DNA_FFN_WIDTH, bias=False)
        made.linear(f"{layer}.mlp.wo", DNA_FFN_WIDTH, WIDTH)
        made.norm(f"{layer}.mlp.layernorm")
    made.linear("pooler.dense", WIDTH, WIDTH)
    torch.save(made.tensors, folder / "pytorch_model.bin")
    write_json(folder / "config.json", dnabert_s_config())


def dnabert_s_config() -> dict[str, object]:
    """Give the published config.json other sizes."""
    bert = {"AutoModel": "BertModel", "AutoModelForMaskedLM": "BertForMaskedLM"}
    bert["AutoModelForSequenceClassification"] = "BertForSequenceClassification"
    config: dict[str, object] = {
        "_name_or_path": "zhihan1996/DNABERT-2-117M", "alibi_starting_size": 512, "architectures": ["BertModel"],
        "attention_probs_dropout_prob": 0.0,
        "auto_map": {"AutoConfig": "configuration_bert.BertConfig"} | {k: f"bert_layers.{v}" for k, v in bert.items()},
        "classifier_dropout": None, "gradient_checkpointing": False, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
        "hidden_size": WIDTH, "initializer_range": 0.02, "intermediate_size": DNA_FFN_WIDTH, "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512, "model_type": "bert", "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS, "pad_token_id": 0, "position_embedding_type": "absolute",
        "torch_dtype": "float32", "transformers_version": "4.28.0", "type_vocab_size": 2, "use_cache": True,
        "vocab_size": VOCABULARY,
    }  # fmt: skip
    return config


def write_esm2(path: Path) -> None:
    """Write a tiny ESM-2 and its contact regression as fair-esm has them, in half precision."""
    made = Random(SEED + 1)
    made.embedding("encoder.sentence_encoder.embed_tokens", 33)
    inverse_frequencies = 10000.0 ** -(torch.arange(0, WIDTH // HEADS, 2) / (WIDTH // HEADS))
    for layer in (f"encoder.sentence_encoder.layers.{i}" for i in range(LAYERS)):
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            made.linear(f"{layer}.self_attn.{part}", WIDTH, WIDTH)
        made.tensors[f"{layer}.self_attn.rot_emb.inv_freq"] = inverse_frequencies
        made.norm(f"{layer}.self_attn_layer_norm")
        made.linear(f"{layer}.fc1", WIDTH, 4 * WIDTH)
        made.linear(f"{layer}.fc2", 4 * WIDTH, WIDTH)
        made.norm(f"{layer}.final_layer_norm")
    made.norm("encoder.sentence_encoder.emb_layer_norm_after")
    made.linear("encoder.lm_head.dense", WIDTH, WIDTH)
    made.norm("encoder.lm_head.layer_norm")
    made.tensors["encoder.lm_head.bias"] = torch.zeros(33)
    tensors = {name: tensor.half() for name, tensor in made.tensors.items()}
    tensors["encoder.lm_head.weight"] = tensors["encoder.sentence_encoder.embed_tokens.weight"]  # tied
    name = "masked_lm_esm2"
    sizes = {"encoder_layers": LAYERS, "encoder_embed_dim": WIDTH, "encoder_ffn_embed_dim": 4 * WIDTH}
    sizes |= {"encoder_attention_heads": HEADS, "token_dropout": True}
    torch.save({"cfg": {"model": argparse.Namespace(_name=name, arch=name, **sizes)}, "model": tensors}, path)
    contacts = Random(SEED + 2)
    contacts.linear("contact_head.regression", LAYERS * HEADS, 1)
    halves = {name: tensor.half() for name, tensor in contacts.tensors.items()}
    torch.save({"model": halves}, path.with_name(f"{path.stem}-contact-regression.pt"))


# --- embedding


class Encoders(NamedTuple):
    """Both encoders and their tokenizers, as the program reads them from the files."""

    dna: DnabertS
    protein: Esm2
    dna_tokenizer: DnaTokenizer

    def embed(self, orfs: OrfSet) -> Tensor:
        """(N, 2 WIDTH) embeddings, DNA first."""
        dna = embed(self.dna, self.dna_tokenizer(orfs.nucleotides))
        return torch.cat([dna, embed(self.protein, protein_tokenizer()(orfs.proteins))], dim=1)


@torch.inference_mode()
def embed(encoder: DnabertS | Esm2, sequences: list[NDArray[np.int64]], batch: int = 256) -> Tensor:
    """(N, WIDTH) embeddings, in the order given."""
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    parts = [encoder(pack([sequences[i] for i in order[a : a + batch]])) for a in range(0, len(order), batch)]
    return torch.cat(parts)[torch.argsort(torch.tensor(order))]


# --- the head


class Labelled(NamedTuple):
    """Embeddings with their classes."""

    embeddings: Tensor
    labels: Tensor


def balanced(sets: Sequence[OrfSet], embeddings: Sequence[Tensor], role: str) -> Labelled:
    """As many viral as other ORFs of the files with this role, drawn at random."""
    generator = torch.Generator().manual_seed(SEED)
    chosen = [(orfs.is_viral, tensor) for orfs, tensor in zip(sets, embeddings, strict=True) if orfs.role == role]
    classes = [torch.cat([tensor for is_viral, tensor in chosen if is_viral == label]) for label in (False, True)]
    count = min(map(len, classes))
    drawn = torch.cat([tensor[torch.randperm(len(tensor), generator=generator)[:count]] for tensor in classes])
    return Labelled(drawn, torch.arange(2).repeat_interleave(count))


def fit_head(training: Labelled, validation: Labelled) -> tuple[MLPClassifier, int]:
    """Fit a head and return it as it was in the epoch with the lowest validation loss, and that epoch."""
    torch.manual_seed(SEED)
    mean, spread = training.embeddings.mean(0), training.embeddings.std(0)
    head = MLPClassifier(training.embeddings.shape[1], HIDDEN, 2)
    optimizer = torch.optim.AdamW(head.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    scaled, scaled_validation = (training.embeddings - mean) / spread, (validation.embeddings - mean) / spread
    best, best_loss, best_epoch = head, float("inf"), 0
    for epoch in range(1, EPOCHS + 1):
        head.train()
        for rows in torch.randperm(len(scaled)).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(head(scaled[rows]), training.labels[rows]).backward()
            optimizer.step()
        schedule.step()
        with torch.inference_mode():
            loss = F.cross_entropy(head.eval()(scaled_validation), validation.labels).item()
        if loss < best_loss:
            best, best_loss, best_epoch = copy.deepcopy(head), loss, epoch
    return take_embeddings(best.eval(), mean, spread), best_epoch


@torch.no_grad()
def take_embeddings(head: MLPClassifier, mean: Tensor, spread: Tensor) -> MLPClassifier:
    """Work the scaling of the inputs into the first layer, so that the head takes embeddings as they are."""
    layer = head.hidden_layer
    layer.weight /= spread
    layer.bias -= layer.weight @ mean
    return head


# --- figures and README


class Figures(NamedTuple):
    """How well some ORFs are told from those of the other class."""

    name: str
    label: str
    num_orfs: int
    num_shared: int
    accuracy: float
    auroc: float


def evaluate(sets: Sequence[OrfSet], scores: Sequence[Tensor], role: str) -> list[Figures]:
    """Figures of each file with this role, against the files of the other class, and of all of them together."""
    chosen = [(orfs, score) for orfs, score in zip(sets, scores, strict=True) if orfs.role == role]
    pools = {label: torch.cat([score for orfs, score in chosen if orfs.is_viral == label]) for label in (True, False)}
    rows = []
    for orfs, score in chosen:
        right = ((score >= 0.5) == orfs.is_viral).float().mean().item()
        rows.append(Figures(orfs.file, NAMES[orfs.is_viral], len(score), orfs.num_shared, right,
                            auroc(score, pools[not orfs.is_viral], orfs.is_viral)))  # fmt: skip
    balanced_accuracy = ((pools[True] >= 0.5).float().mean() + (pools[False] < 0.5).float().mean()).item() / 2
    count, shared = sum(row.num_orfs for row in rows), sum(row.num_shared for row in rows)
    return [*rows, Figures("all", "both", count, shared, balanced_accuracy, auroc(pools[True], pools[False], True))]


def auroc(scores: Tensor, others: Tensor, is_viral: bool) -> float:
    """Area under the ROC curve of ``scores`` against those of the other class."""
    labels = torch.cat([torch.full((len(scores),), int(is_viral)), torch.full((len(others),), int(not is_viral))])
    return binary_auroc(torch.cat([scores, others]), labels).item()


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lay out a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


README = """# Packaged sample and demo model

**This is a demo model, not for science.** Its encoders are random and tiny; only its head was fitted, to a few
genomes. It is here so that the program can be tried without a download. Its calls are often wrong.

Everything in this folder is written by `tools/make_demo.py`; do not edit it by hand.

## Sample: `sample.fasta.gz`

{num_records} records, {num_bases} bases, all real: GenBank, RefSeq and EMBL records, as they lie in the source
distribution of biopython 1.88 (folder `Tests`). INSDC and NCBI place no restriction on the use of such records, which
are public; the distribution has the Biopython and BSD 3-clause licences. Ranges are those of the record, counted from
1; `c` marks the reverse strand. Reads were cut at random places (seed {seed}), so some have no open frame.

{sample}

## Demo model

| file | format | what |
| --- | --- | --- |
| `DNABERT-S/` | as zhihan1996/DNABERT-S | {layers} layers, width {width}, {heads} heads, {vocabulary} tokens, random |
| `esm2_t2_demo_UR50D.pt` | fair-esm, half precision | {layers} layers, width {width}, {heads} heads, random |
| `esm2_t2_demo_UR50D-contact-regression.pt` | fair-esm | random; fair-esm asks for it |
| `300_model.pth` | whole pickled `__main__.MLPClassifier` | {inputs} numbers to {hidden} to 2, fitted |

The byte pairs of the tokenizer were learned from the training files. The head was fitted by AdamW (learning rate
{rate}, weight decay {decay}, batches of {batch}) to {num_training} ORFs of {chunk_length}-nt chunks, half of them
viral, and kept as it was after the epoch with the lowest validation loss: epoch {epoch} of at most {epochs}, loss
{loss:.3f} (answering one half throughout has 0.693). Of each file at most {per_file} ORFs were drawn. The split is by
source file, with relatives (virus families, species) on the same side. The sample and its relatives were left out, as
was every ORF that shares {shared} letters in a row with the sample ({num_shared} ORFs).

### How good it is

{verdict}

Accuracy of `all` is the mean of both classes; of a file, the share of its ORFs called right at a score of 0.5. AUROC
of a file is that of its ORFs against all ORFs of the other class in the same group. The epoch was chosen by the
validation loss; the size of the random weights and the learning rate, each out of four, by validation figures.
The split itself, the ORFs per file and the width of a layer were changed once, after a first trial had shown poor
figures for both held-out groups, so even the test figures are not quite untouched. The sample was not used to fit or
choose anything (its figures were printed in the first trial too), but it is small. RefSeq genomes like these are what
the published model was trained on, so none of this says anything about it. Labels are those of whole files: the piece
of E. coli (training) holds a prophage akin to Lambda (validation). Plasmids may have relatives on both sides.

{figures}

### Genomes used

{provenance}

Left out:

{excluded}
"""


class Result(NamedTuple):
    """What the README says about the head."""

    epoch: int
    loss: float
    num_training: int
    figures: dict[str, list[Figures]]


def readme(entries: Sequence[Entry], result: Result, sets: Sequence[OrfSet], data: Path) -> str:
    """Write out the README of the folder."""
    validation, test, sample = (result.figures[role][-1] for role in ("validation", "test", "sample"))
    held_out = min(validation.auroc, test.auroc)
    verdict = (
        f"On files it was not fitted to, the AUROC is {validation.auroc:.2f} (validation) and {test.auroc:.2f} (test), "
        f"the accuracy {validation.accuracy:.2f} and {test.accuracy:.2f}: "
        + ("above chance (0.50), but weak" if held_out >= 0.55 else "not clearly better than chance (0.50)")
        + f". On the ORFs of the sample they are {sample.auroc:.2f} and {sample.accuracy:.2f}."
    )
    return README.format(
        num_records=len(entries), num_bases=f"{sum(len(entry.letters) for entry in entries):,}", seed=SEED,
        sample=sample_table(entries), layers=LAYERS, width=WIDTH, heads=HEADS, vocabulary=VOCABULARY, hidden=HIDDEN,
        inputs=2 * WIDTH, rate=LEARNING_RATE, decay=WEIGHT_DECAY, batch=BATCH, chunk_length=CHUNK_LENGTH,
        num_training=result.num_training, epoch=result.epoch, epochs=EPOCHS, loss=result.loss, per_file=ORFS_PER_FILE,
        shared=SHARED_LETTERS, num_shared=sum(orfs.num_shared for orfs in sets), verdict=verdict,
        figures=figures_table(result.figures), provenance=provenance_table(sets, data),
        excluded=table(["file", "why"], [(f"`{name}`", why) for name, why in EXCLUDED.items()]),
    )  # fmt: skip


def sample_table(entries: Sequence[Entry]) -> str:
    """List all records of the sample."""
    rows = [
        (f"`{e.name}`", e.source.organism, e.source.title, NAMES[e.source.is_viral], e.kind, e.place, len(e.letters),
         f"`Tests/{e.source.file}`")
        for e in entries
    ]  # fmt: skip
    return table(["record", "organism", "what", "class", "cut", "range", "nt", "file in biopython 1.88"], rows)


def figures_table(figures: dict[str, list[Figures]]) -> str:
    """List figures by file, the sum of each group first."""
    rows = [
        (role, row.name, row.label, row.num_orfs, f"{row.accuracy:.3f}", f"{row.auroc:.3f}")
        for role, group in figures.items()
        for row in (group[-1], *group[:-1])
        if role != "training" or row is group[-1]
    ]
    return table(["group", "file", "class", "ORFs", "accuracy", "AUROC"], rows)


def provenance_table(sets: Sequence[OrfSet], data: Path) -> str:
    """List where the genomes are from."""
    with (data / "MANIFEST.tsv").open(encoding="utf-8", newline="") as stream:
        manifest = {row["file"]: row for row in csv.DictReader(stream, delimiter="\t")}
    rows = []
    for orfs in sets:
        if orfs.role != "sample":
            row = manifest[f"{'viral' if orfs.is_viral else 'nonviral'}/{orfs.file}.fa.gz"]
            source = f"{row['source_repo']} @ {row['source_commit']}"
            rows.append((orfs.role, NAMES[orfs.is_viral], orfs.file, row["group"], source, row["licence"]))
    rows.sort(key=lambda row: ("training", "validation", "test").index(row[0]))
    return table(["group", "class", "file", "what", "GitHub repository it was taken from", "licence there"], rows)


# --- all of it


def make_encoders(sets: Sequence[OrfSet], folder: Path) -> Encoders:
    """Write both encoders and read them as the program does."""
    dna_folder, protein_file = folder / "DNABERT-S", folder / "esm2_t2_demo_UR50D.pt"
    dna_folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer([orf for orfs in sets if orfs.role == "training" for orf in orfs.nucleotides], dna_folder)
    write_dnabert_s(dna_folder)
    write_esm2(protein_file)
    return Encoders(load_dnabert_s(dna_folder), load_esm2(protein_file), DnaTokenizer(str(dna_folder)))


def make_head(sets: Sequence[OrfSet], encoders: Encoders, path: Path) -> Result:
    """Fit the head, write it, and score all ORFs with what the program reads from the file."""
    embeddings = [encoders.embed(orfs) for orfs in sets]
    training, validation = (balanced(sets, embeddings, role) for role in ("training", "validation"))
    fitted, epoch = fit_head(training, validation)
    torch.save(fitted, path)
    head = load_head(read_file(path), path)
    with torch.inference_mode():
        scores = [head.scores(tensor)[:, 1] for tensor in embeddings]
        loss = F.cross_entropy(head(validation.embeddings), validation.labels).item()
    figures = {role: evaluate(sets, scores, role) for role in ("training", "validation", "test", "sample")}
    return Result(epoch, loss, len(training.labels), figures)


def main() -> None:
    """Make the sample, the encoders, the head and the README."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--biopython", type=Path, required=True, help="unpacked source distribution of biopython 1.88")
    parser.add_argument("--data", type=Path, required=True, help="folder with viral/, nonviral/ and MANIFEST.tsv")
    parser.add_argument("--output", type=Path, default=DEMO, help="folder to write to (default: that of the package)")
    arguments = parser.parse_args()
    torch.use_deterministic_algorithms(True)
    entries = sample_entries(arguments.biopython)
    sets = read_genomes(arguments.data, entries)
    encoders = make_encoders(sets, arguments.output)
    write_sample(entries, arguments.output / "sample.fasta.gz")
    sets += [sample_orf_set(entries, is_viral) for is_viral in (True, False)]
    result = make_head(sets, encoders, arguments.output / "300_model.pth")
    text = readme(entries, result, sets, arguments.data)
    (arguments.output / "README.md").write_text(text, encoding="utf-8")
    print(figures_table({role: figures[-1:] for role, figures in result.figures.items()}))


if __name__ == "__main__":
    main()
