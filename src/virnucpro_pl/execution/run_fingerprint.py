"""Fingerprint of a run: all that its results depend on."""

import json
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning import Trainer
from omegaconf import DictConfig, OmegaConf

from virnucpro_pl import __version__
from virnucpro_pl.configuration.hydra_config import typed_settings
from virnucpro_pl.data.embedding_cache import EncoderFingerprints
from virnucpro_pl.files.digests import sha256_of
from virnucpro_pl.host.stage_clock import DNABERT_S, ESM2
from virnucpro_pl.models.virnucpro import VirNucPro
from virnucpro_pl.runs.fingerprint import CALLS, JOB

_ORFS = ("data.chunk_length", "data.chunking", "data.ambiguity", "data.alphabet")


def settings_fingerprint(cfg: DictConfig, trainer: Trainer, model: VirNucPro) -> dict[str, Any]:
    """Return the settings that results depend on, by key; no file is read.

    The number of devices and the token budget are not among them. The jobs of a sweep, which compares speeds, differ in
    all settings of the command line.
    """
    hydra = HydraConfig.get()
    job = {JOB: typed_settings()} if hydra.mode is RunMode.MULTIRUN else {}
    numerics = numerics_of(trainer, model)
    return {
        "version": __version__,
        **{key: OmegaConf.select(cfg, key) for key in (*_ORFS, *CALLS)},
        "trainer.precision": numerics.pop("precision"),
        "device": numerics.pop("device"),
        **{f"model.{key}": value for key, value in numerics.items()},
        **job,
    }


def digest_cache_path(embedding_cache: str | None) -> Path | None:
    """Return the digest cache of weight files in an embedding cache, None without an embedding cache."""
    return None if embedding_cache is None else Path(embedding_cache) / "weights.json"


def fingerprint_encoders(model: VirNucPro, numerics: dict[str, Any], digest_cache: Path | None) -> EncoderFingerprints:
    """Return the fingerprint of each encoder in use: its weights, precision, kind of device and numerics.

    Args:
        model: model whose weight files are hashed.
        numerics: settings that embeddings depend on, as ``numerics_of`` returns them.
        digest_cache: digest cache of weight files.
    """
    sources = model.encoder_sources()

    def text(name: str, encoder: str) -> str | None:
        if name not in sources:
            return None
        digests = sha256_of(Path(sources[name].fingerprint()["path"]), digest_cache)
        return json.dumps({"encoder": encoder, "weights": sorted(digests.values()), **numerics})

    return EncoderFingerprints(text("dna_encoder", DNABERT_S), text("protein_encoder", ESM2))


def numerics_of(trainer: Trainer, model: VirNucPro) -> dict[str, Any]:
    """Return the settings that embeddings depend on, beside weights and sequences."""
    return {
        "precision": str(trainer.precision),
        "device": trainer.strategy.root_device.type,
        **model.numerics._asdict(),
    }
