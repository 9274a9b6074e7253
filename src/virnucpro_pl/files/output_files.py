"""Names of the files and folders that commands write to their output folders."""

import os
import re
from pathlib import Path

RUN_FILE = "run.json"
LOG_FILE = "run.log"
WORK_FOLDER = ".work"

ORF_TABLE = "prediction_results.txt"
CONSENSUS_TABLE = "prediction_results_highestscore.csv"
RECORD_TABLE = "sequences.tsv"
CHUNK_TABLE = "predictions.parquet"
VIRAL_FASTA = "viral.fasta"
RESULT_FILES = (ORF_TABLE, CONSENSUS_TABLE, RECORD_TABLE, CHUNK_TABLE, VIRAL_FASTA)

REPORT = "report.html"
FIGURES_FOLDER = "figures"
PICTURES, FIGURE_FORMATS = ("scores", "lengths", "tracks"), ("png", "svg", "pdf")
FIGURE_FILES = tuple(f"{FIGURES_FOLDER}/{picture}.{image}" for picture in PICTURES for image in FIGURE_FORMATS)
"""Files that ``report`` adds to the results of ``predict``"""
NONVIRAL, UNCALLED = "nonviral.fasta", "uncalled.fasta"
KINDS = ("viral", "nonviral", "uncalled")
FASTQ_FILES = tuple(f"{kind}{mate}.fastq.gz" for kind in KINDS for mate in ("", "_1", "_2"))
KRAKEN = "kraken.tsv"
BED = "viral_chunks.bed"
MULTIQC_CALLS, MULTIQC_GENERAL = "virnucpro_calls_mqc.json", "virnucpro_general_mqc.json"
FORMAT_FILES = {
    "report": (REPORT,),
    "nonviral": (NONVIRAL, UNCALLED),
    "fastq": FASTQ_FILES,
    "kraken": (KRAKEN,),
    "bed": (BED,),
    "multiqc": (MULTIQC_CALLS, MULTIQC_GENERAL),
}
"""Files of each of ``formats``; not every run writes all of them"""

SHARDS, INDEX_FILE, EMBEDDINGS_FILE = "shards", "index.parquet", "embeddings.json"
HEAD_FILE, INFO_FILE = "head.safetensors", "head.json"
SPLIT_FILE = "split.json"
CURVES = "training.png"
EMBEDDINGS_FOLDER = "embeddings"
TRAINING_LOGS = ("checkpoints", "csv", "tensorboard")
ENCODER_FILES = {"dna_encoder": "dna_encoder", "protein_encoder": "protein_encoder.pt"}
"""File or folder of each trained encoder, by its key in the configuration"""
METRICS, GROUPS, LENGTHS = "metrics.json", "groups.tsv", "lengths.tsv"
EVALUATION_PLOTS = ("roc.png", "precision_recall.png", "calibration.png", "lengths.png", "groups.png")
COMPARISON, MISMATCHES, SCATTER = "compare.json", "mismatches.tsv", "scatter.png"
BENCHMARK_TABLE, BENCHMARK_PLOT = "benchmark.csv", "benchmark.png"
LABELS_FILE, DATASET_FILE = "labels.parquet", "dataset.json"

FILES: dict[str, tuple[str, ...]] = {
    "predict": RESULT_FILES,
    "embed": (EMBEDDINGS_FILE, INDEX_FILE, SHARDS),
    "train": (HEAD_FILE, INFO_FILE, SPLIT_FILE, CURVES, *ENCODER_FILES.values(), *TRAINING_LOGS, EMBEDDINGS_FOLDER),
    "test": (METRICS, GROUPS, LENGTHS, *EVALUATION_PLOTS, HEAD_FILE, INFO_FILE, EMBEDDINGS_FOLDER),
    "compare": (COMPARISON, MISMATCHES, SCATTER),
    "benchmark": (BENCHMARK_TABLE, BENCHMARK_PLOT),
}
"""Results of each command besides ``run.json``, ``run.log`` and ``formats``"""

WORK_FILES = ("lock", "identity.json", "starts.json", "digests.json", "scores")
WORK_FOLDERS = ("ranks", "figures", "parts", "store", "results")
"""Files and folders in the work folder"""
_IN_WORK_FOLDER = re.compile(
    rf"({'|'.join(map(re.escape, WORK_FILES))}|reads_\d+\.fasta"
    r"|ranks/\d+|figures/[a-z]+-\d+\.json"
    r"|parts/([\w-]+/)*([0-9a-f]{16}/)(token_budget|part-\d+\.parquet(\.set-aside)?)"
    r"|store/([\w.-]+/)*([a-z_]+\.(arrow|npy)|(manifest|digests)\.json)"
    rf"|results/({'|'.join(map(re.escape, RESULT_FILES))}))"
    r"(\.[0-9a-f]{12}\.tmp)?"
)
"""Pattern of the paths that commands write within the work folder"""
FOLDERS = frozenset(
    (
        *(WORK_FOLDER, EMBEDDINGS_FOLDER, FIGURES_FOLDER, SHARDS, ENCODER_FILES["dna_encoder"], *TRAINING_LOGS),
        *(f"{WORK_FOLDER}/{name}" for name in WORK_FOLDERS),
    )
)
"""Those names that are folders"""

_SHARD_FILES = r"(weights\.json|[0-9a-f]{16}/(encoder\.json|[0-9a-f]{32}\.(arrow|damaged)))"
_LOGGED = r"(events\.out\.tfevents\..*|hparams\.yaml|metrics\.csv)"
_WITHIN = {
    SHARDS: _SHARD_FILES,
    EMBEDDINGS_FOLDER: rf"(\d+/)?(\.work/.*|run\.json|embeddings\.json|index\.parquet|{SHARDS}/{_SHARD_FILES})",
    "checkpoints": r"(best|last)\.ckpt",
    "csv": rf"(version_\d+/)?{_LOGGED}",
    "tensorboard": rf"(version_\d+/)?{_LOGGED}",
    ENCODER_FILES["dna_encoder"]: r"(config|tokenizer|tokenizer_config|special_tokens_map)\.json|pytorch_model\.bin",
}
"""Patterns of the paths that commands write within each folder"""


def written_within(folder: Path) -> list[str]:
    """Return the paths within a result folder that have names of files of this program, sorted.

    >>> written_within(Path("no such folder"))
    []
    """
    pattern = re.compile(rf"({_WITHIN.get(folder.name, '(?!)')})(\.[0-9a-f]{{12}}\.tmp)?")
    files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or path.is_file())
    return sorted(name for name in files if pattern.fullmatch(name))


def is_own_work_folder(work: Path) -> bool:
    """Return whether a work folder holds only files of this program, among them its lock or heartbeats."""
    if not work.is_dir() or work.is_symlink():
        return False
    files = {(Path(folder) / name).relative_to(work).as_posix() for folder, _, names in os.walk(work) for name in names}
    top = {path.name for path in work.iterdir()}
    return (
        all(map(_IN_WORK_FOLDER.fullmatch, files))
        and top <= {*files, *WORK_FOLDERS}
        and (bool({"lock", "identity.json"} & top) or top <= {"ranks", "figures"})
    )
