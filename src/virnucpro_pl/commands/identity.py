"""What the results of a run depend on, to tell whether an output folder belongs to the run that is asked for."""

from collections.abc import Mapping
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning import Trainer
from omegaconf import DictConfig, OmegaConf

from virnucpro_pl import __version__
from virnucpro_pl.commands.building import arithmetic_of
from virnucpro_pl.module import VirNucPro

INPUT = "input"
THRESHOLD = "results.threshold"
_CALLS = ("results.tie", "results.min_viral_fraction", THRESHOLD)
_JOB = "job of the sweep"
_ORFS = ("data.chunk_length", "data.chunking", "data.ambiguity")
_WEIGHTS = "weights"


def settings_identity(cfg: DictConfig, trainer: Trainer, model: VirNucPro) -> dict[str, Any]:
    """Return the settings that decide on results, by the key a user knows; no file is read.

    Neither the number of devices nor that of tokens in a batch is among them, but the jobs of a sweep, whose speed is
    compared, are told apart by all that was asked for.
    """
    hydra = HydraConfig.get()
    job = {_JOB: list(hydra.overrides.task)} if hydra.mode is RunMode.MULTIRUN else {}
    arithmetic = arithmetic_of(trainer, model)
    return {
        "version": __version__,
        **{key: OmegaConf.select(cfg, key) for key in (*_ORFS, *_CALLS)},
        "trainer.precision": arithmetic.pop("precision"),
        "device": arithmetic.pop("device"),
        **{f"model.{key}": value for key, value in arithmetic.items()},
        **job,
    }


def weights_identity(digests: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Tell weights by the SHA-256 of their files, wherever they lie."""
    return {f"model.{name}.{_WEIGHTS}": sorted(files.values()) for name, files in digests.items()}


def identity_of_scores(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return what scores depend on: all but the settings that turn them into calls."""
    return {key: value for key, value in identity.items() if key not in (*_CALLS, _JOB)}


def difference(then: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Say in a user's words how two runs differ in what is known of both, None if they do not.

    >>> difference({"data.chunk_length": 500, "input": ["a"]}, {"data.chunk_length": 300, "input": ["b"]})
    'data.chunk_length=500 there, 300 here; input: other sequences'
    """
    told = []
    for key, before in then.items():
        after = now.get(key, before)
        if before == after:
            continue
        if key == _JOB:
            told.append(f"{_words(before, but=after)} there, {_words(after, but=before)} here")
        elif key == INPUT:
            told.append(f"{key}: other sequences")
        elif key.endswith(_WEIGHTS):
            told.append(f"{key}: other weights")
        else:
            told.append(f"{key}={before} there, {after} here")
    return "; ".join(told) or None


def _words(job: list[str], but: list[str]) -> str:
    """Return what was asked for in one job only."""
    return " ".join(word for word in job if word not in but) or "nothing"
