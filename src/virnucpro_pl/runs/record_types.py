"""Types of run records (``run.json``)."""

from typing import Any, NotRequired, TypedDict

from virnucpro_pl.files.digests import FileFacts

SCHEMA_VERSION = 1
"""Version of the record; records without it have the same keys"""


class Calls(TypedDict):
    """Numbers of calls."""

    others: int
    virus: int
    ambiguous: int
    not_called: int


class OrfCalls(TypedDict):
    """Numbers of ORFs by their larger score."""

    others: int
    virus: int


class CallCounts(TypedDict):
    """Numbers of calls of sequences, chunks and ORFs."""

    records: Calls
    chunks: Calls
    orfs: OrfCalls
    out_of_domain: int


class Saved(TypedDict):
    """Numbers of ORFs and proteins that were not embedded because they repeat others."""

    orfs: int
    proteins: int


class InputFile(TypedDict):
    """Facts about an input file."""

    path: str
    sha256: str
    format: str
    mates: str | None
    records: int
    letters: int
    calls: Calls
    compression: NotRequired[str]
    skipped: NotRequired[dict[str, int]]


class Counts(TypedDict):
    """Counts of the input, and of its calls."""

    inputs: list[InputFile]
    records: int
    bases: int
    chunks: int
    orfs: int
    duplicate_suffix: str
    saved: Saved
    record_status: dict[str, int]
    chunk_status: dict[str, int]
    calls: CallCounts
    chunks_with_orf: NotRequired[int]
    duplicate_names: NotRequired[int]
    formula_names: NotRequired[int]


class Speed(TypedDict):
    """Throughput."""

    tokens_per_second: float
    sequences_per_second: float
    packing_efficiency: float


class EncoderMetrics(Speed):
    """Throughput and counts of an encoder."""

    sequences: int
    cached: int
    tokens: int


class StageMetrics(TypedDict):
    """Time of a stage in seconds, and its share of all stages."""

    seconds: float
    share: float


class Metrics(Speed):
    """Metrics of the run: times, throughput, memory in bytes, waiting times in milliseconds."""

    stages: dict[str, StageMetrics]
    encoders: dict[str, EncoderMetrics]
    token_budget: float
    budget_fill: float
    batches: float
    peak_memory_bytes: float
    wait_mean_ms: float
    wait_max_ms: float
    wait_share: float
    gpu_peak_memory_bytes: int | float | None
    gpu_utilisation_percent: int | float | None
    predict_seconds: NotRequired[float]
    embedded_orfs: NotRequired[int]
    devices: NotRequired[list[str]]


class Weights(TypedDict):
    """Weights of the head or of an encoder."""

    sha256: dict[str, str]
    weights: NotRequired[str]
    path: NotRequired[str]


class Model(TypedDict):
    """Model, its weights, and facts about its head."""

    name: str
    demo: bool
    head: dict[str, Any] | None
    weights: dict[str, Weights]


class Engine(TypedDict):
    """Devices, precision and versions."""

    devices: list[str]
    precision: str
    torch: str
    python: NotRequired[str]
    lightning: NotRequired[str]
    strategy: NotRequired[str]
    world_size: NotRequired[int]


Fingerprint = TypedDict(
    "Fingerprint",
    {
        "data.chunk_length": int,
        "data.chunking": str,
        "results.tie": str,
        "results.min_viral_fraction": float,
        "results.threshold": float,
    },
)
Fingerprint.__doc__ = "Settings, inputs and weights that the results depend on, by key."


class DataSettings(TypedDict):
    """Settings under ``data``."""

    chunk_length: int | None


class Settings(TypedDict):
    """All settings of the run."""

    data: DataSettings


class Provenance(TypedDict):
    """Command, version, start, duration in seconds and settings of a run."""

    schema_version: NotRequired[int]
    version: str
    command: list[str]
    directory: str
    started: str
    seconds: float
    commit: NotRequired[str | None]
    platform: NotRequired[str]
    config: Settings


class RunRecord(Provenance):
    """Record of a finished run of ``predict``."""

    starts: NotRequired[list[dict[str, Any]]]
    resumed: int
    warnings: list[str]
    model: Model
    engine: Engine
    counts: Counts
    embedding_cache: str | None
    figures: Metrics
    files: dict[str, FileFacts]
    identity: Fingerprint
    formats: dict[str, list[str]]


class EmbeddedCounts(TypedDict):
    """Counts that a later ``embed`` reports."""

    orfs: int


class EmbeddingSpeed(Speed):
    """Metrics of an encoder that a later ``embed`` reports."""

    sequences: int
    cached: int


class EmbeddingMetrics(TypedDict):
    """Metrics that a later ``embed`` reports."""

    tokens_per_second: float
    encoders: dict[str, EmbeddingSpeed]


class EmbedRecord(TypedDict):
    """Part of the record of ``embed`` that a later start reports."""

    started: str
    counts: EmbeddedCounts
    figures: EmbeddingMetrics


class TrainMetrics(TypedDict):
    """Metrics that a later ``train`` reports."""

    epoch: int
    epochs: int
    val_loss: float
    val_average_precision: float
    val_auroc: float
    val_accuracy: float


class TrainRecord(TypedDict):
    """Part of the record of ``train`` that a later start reports."""

    started: str
    warnings: list[str]
    figures: TrainMetrics
