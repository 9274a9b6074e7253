"""Embedding of one input into a folder, for ``embed``, ``train`` and ``test``."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
from lightning import Trainer
from numpy.typing import NDArray
from omegaconf import DictConfig

from virnucpro_pl.data.embedding_cache import EmbeddingDtype, EncoderFingerprints, open_caches
from virnucpro_pl.data.embeddings import FORMAT_VERSION, OrfNames, describe_cache, write_index
from virnucpro_pl.errors import UserError
from virnucpro_pl.execution.encoder_run import EncoderRun
from virnucpro_pl.execution.provenance import provenance
from virnucpro_pl.files.durable import write_text
from virnucpro_pl.files.output_files import EMBEDDINGS_FILE, FILES, INDEX_FILE, SHARDS
from virnucpro_pl.host.stage_clock import StageClock
from virnucpro_pl.models.virnucpro import VirNucPro
from virnucpro_pl.results.publishing import files_in
from virnucpro_pl.results.run_check import check_reported
from virnucpro_pl.results.slices import ResultReader
from virnucpro_pl.results.summary import merge_metrics
from virnucpro_pl.results.tables import name_chunks
from virnucpro_pl.runs.starts import Starts
from virnucpro_pl.sequence.store import OrfStore
from virnucpro_pl.sequence.translation import FRAMES

log = logging.getLogger(__name__)

_ENCODERS = ("dna_encoder", "protein_encoder")


def embed_into(
    cfg: DictConfig, trainer: Trainer, clock: StageClock, model: VirNucPro, output: Path, work: Path
) -> float:
    """Embed one input into a folder, or resume doing so.

    Args:
        cfg: configuration with ``data``, ``dtype``, ``overwrite`` and ``paths.work_dir``.
        trainer: a new trainer.
        clock: clock of the stages.
        model: model without head.
        output: folder of the embeddings.
        work: folder within it, removed when the run is finished.

    Returns:
        Tokens per second; NaN on ranks other than the first.
    """
    if cfg.dtype not in get_args(EmbeddingDtype):
        raise UserError(f"dtype={cfg.dtype}: choose one of {', '.join(get_args(EmbeddingDtype))}")
    return _Run(cfg, trainer, clock, model, FILES["embed"], output, work).run()


def as_kept(fingerprints: EncoderFingerprints, dtype: EmbeddingDtype) -> EncoderFingerprints:
    """Return the fingerprints of encoders whose embeddings are stored as ``dtype``."""
    if dtype == "float32":
        return fingerprints
    return EncoderFingerprints(
        *(None if one is None else json.dumps(json.loads(one) | {"kept_as": dtype}) for one in fingerprints)
    )


class _Run(EncoderRun):
    """Run that embeds one input."""

    def prepare(self) -> bool:
        """Prepare the run; the dtype is part of its fingerprint."""
        self.fingerprint["dtype"] = self.cfg.dtype
        if super().prepare():
            return True
        assert self.folder.finished is not None
        check_reported(self.folder.finished, "embed", self.output)
        return False

    def check_inputs(self, digests: dict[str, list[str]]) -> None:
        """Refuse whole chunks, which have no protein, for ESM-2."""
        if OrfStore(self.source.folder).manifest["whole_chunks"] and self.model.inputs != "dna":
            raise UserError(
                "the dataset holds whole chunks (data.rule=chunks), which have no protein; give model.inputs=dna"
            )

    def caching(self) -> dict[str, str | None]:
        """Return the output folder as the cache."""
        return {"embedding_cache": str(self.output / SHARDS), "embedding_dtype": self.cfg.dtype}

    def fingerprint_encoders(self) -> EncoderFingerprints:
        """Return fingerprints that include the dtype of the embeddings."""
        return as_kept(super().fingerprint_encoders(), self.cfg.dtype)

    def write_results(self) -> None:
        """Write the index of the embeddings of all ORFs and finish the run."""
        stages, throughput = self.rank_metrics()
        store = self.datamodule.store
        fingerprints = self.fingerprint_encoders()
        caches = open_caches(self.output / SHARDS, fingerprints)
        write_index(self.output / INDEX_FILE, store, _orf_names(store), caches)
        encoders: dict[str, Any] = {}
        for name, cache, fingerprint in zip(_ENCODERS, caches, fingerprints, strict=True):
            if cache and fingerprint:
                source = {key: self.weights[name][key] for key in ("weights", "sha256")}
                encoders[name] = {**source, **describe_cache(cache, fingerprint)}
        manifest = {
            "format_version": FORMAT_VERSION,
            "model": self.model.name,
            "demo": self.model.demo,
            "dtype": self.cfg.dtype,
            "input": self.fingerprint["input"],
            "orfs": store.num_orfs,
            "encoders": encoders,
        }
        write_text(self.output / EMBEDDINGS_FILE, json.dumps(manifest, indent=2) + "\n")
        starts = Starts(Path(self.cfg.paths.work_dir)).read()
        counts = {"orfs": store.num_orfs, "saved": self.datamodule.saved()}
        figures = merge_metrics(stages, throughput, self.datamodule.token_budget, {})
        self.folder.finish(
            {
                **provenance(self.cfg, self.began),
                "starts": starts,
                "resumed": max(0, len(starts) - 1),
                "model": {"name": self.model.name, "demo": self.model.demo, "weights": self.weights},
                "engine": self.engine(throughput),
                "counts": counts,
                "figures": figures,
                **files_in(self.output, FILES["embed"]),
                "identity": self.fingerprint,
            }
        )

    def report(self) -> float:
        """Log a summary, also of a run that was finished before, and return its tokens per second."""
        run = self.folder.finished
        assert run is not None
        if not self.source.is_prepared:
            log.info("Embedded already, %s; nothing to do", run["started"])
        figures = run["figures"]
        for name, encoder in figures["encoders"].items():
            log.info(
                "  %-10s %s sequences, %s tokens/s, packing efficiency %.1f %%, %s found in the cache",
                name,
                f"{encoder['sequences']:,}",
                f"{encoder['tokens_per_second']:,.0f}",
                100 * encoder["packing_efficiency"],
                f"{encoder['cached']:,}",
            )
        log.info("Embeddings of %s ORFs: %s", f"{run['counts']['orfs']:,}", self.output)
        return float(figures["tokens_per_second"])


class _NoScores:
    """Empty scores of ORFs that are only named."""

    def __getitem__(self, rows: slice) -> NDArray[np.float32]:
        return np.empty((rows.stop - rows.start, 0), dtype=np.float32)


def _orf_names(store: OrfStore) -> Iterator[OrfNames]:
    """Yield the names of all ORFs, in order, as in the published table."""
    reader = ResultReader(store.folder, _NoScores())
    for records in reader.records():
        for part in reader.chunks(records):
            owners = np.repeat(np.arange(len(part.num_orfs)), part.num_orfs)
            names, frames = name_chunks(part), part.frames
            ids = [
                f"{names[owner]}{(*FRAMES, '')[frame]}"
                for owner, frame in zip(owners.tolist(), frames.tolist(), strict=True)
            ]
            yield OrfNames(ids, records.first_record + part.owners[owners], frames)
