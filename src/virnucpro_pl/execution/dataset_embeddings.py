"""Embeddings of a dataset, given or computed."""

import copy
import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from virnucpro_pl.data.batch import Modality
from virnucpro_pl.data.embedding_cache import EncoderFingerprints
from virnucpro_pl.data.embeddings import Embeddings, read_manifest
from virnucpro_pl.errors import UserError, escaped
from virnucpro_pl.execution.embedding import as_kept, embed_into
from virnucpro_pl.execution.run_fingerprint import fingerprint_encoders, numerics_of
from virnucpro_pl.execution.trainer import build_trainer
from virnucpro_pl.files.output_files import EMBEDDINGS_FOLDER, FILES
from virnucpro_pl.host.stage_clock import StageClock
from virnucpro_pl.models.virnucpro import VirNucPro
from virnucpro_pl.models.weights.head_bundle import HeadInfo
from virnucpro_pl.training.labelled_store import LabelledStore

_ENCODERS = ("dna_encoder", "protein_encoder")


def embeddings_of(
    cfg: DictConfig, store: LabelledStore, model: VirNucPro, clock: StageClock, given: str | None, output: Path
) -> Embeddings:
    """Open the embeddings of a dataset; compute them if none are given.

    Args:
        cfg: configuration of the command; ``embedding`` has trainer and callbacks for computing them.
        store: the dataset.
        model: model without head.
        clock: clock of the model.
        given: output folder of ``embed``; None: compute the embeddings.
        output: folder of computed embeddings.

    Raises:
        UserError: the embeddings belong to another dataset or other encoders.
    """
    if given is None:
        part = _embedding_config(cfg, store)
        embed_into(part, build_trainer(part, clock), clock, model, output, output / ".work")
        return Embeddings(output)
    embeddings = Embeddings(Path(given))
    inputs = [source["sha256"] for source in store.manifest["inputs"]]
    if embeddings.manifest["input"] != inputs or embeddings.num_orfs != store.num_orfs:
        raise UserError(f"embeddings={given}: of another dataset than {store.folder}; run `embed input={store.folder}`")
    if embeddings.manifest["model"] != model.name:
        raise UserError(
            f"embeddings={given}: made by model {embeddings.manifest['model']}, not {model.name}; give"
            f" model={embeddings.manifest['model']}, or embed again"
        )
    check_inputs(embeddings, model.inputs)
    return embeddings


def fingerprint_of_encoders(
    cfg: DictConfig, store: LabelledStore, model: VirNucPro, clock: StageClock, digest_cache: Path
) -> dict[str, Any]:
    """Return the digests of the encoders of a training, and the numerics of their embeddings.

    Args:
        cfg: configuration of ``train``.
        store: the dataset.
        model: model with the encoders.
        clock: clock of the model.
        digest_cache: digest cache of weight files.

    Raises:
        UserError: the given embeddings, or the weights, cannot be read.
    """
    used = model.encoder_sources()
    if cfg.fine_tuning.mode is not None:
        texts = fingerprint_encoders(model, {}, digest_cache)
    elif cfg.embeddings is not None:
        encoders = read_manifest(Path(cfg.embeddings))["encoders"]
        texts = EncoderFingerprints(*(encoders[name]["identity"] if name in encoders else None for name in _ENCODERS))
    else:
        part = _embedding_config(cfg, store)
        texts = as_kept(
            fingerprint_encoders(model, numerics_of(build_trainer(part, clock), model), digest_cache), part.dtype
        )
    found: dict[str, Any] = {}
    for name, text in zip(_ENCODERS, texts, strict=True):
        if name in used and text is not None:
            content = json.loads(text)
            found[f"model.{name}.weights"] = content.pop("weights")
            found["embeddings.dtype"] = content.pop("kept_as", "float32")
            found |= {f"embeddings.{key}": value for key, value in content.items() if key != "encoder"}
    return found


def files_of(cfg: DictConfig, command: str) -> list[str]:
    """Return the names of the results of a command, without the folder of embeddings if they are given."""
    return [name for name in FILES[command] if name != EMBEDDINGS_FOLDER or cfg.embeddings is None]


def check_encoders(embeddings: Embeddings, info: HeadInfo, head: str) -> None:
    """Raise UserError if a head was trained on embeddings of other encoders."""
    check_inputs(embeddings, info.inputs)
    for name in info.encoders:
        if info.digests(name) != sorted(embeddings.manifest["encoders"][name]["sha256"].values()):
            raise UserError(
                f"model.head.weights={head} was trained with another {name} than the embeddings in {embeddings.folder}"
                f" are of; give model.{name}.weights as it was trained with ({escaped(info.encoders[name]['weights'])})"
            )


def check_inputs(embeddings: Embeddings, wanted: Modality) -> None:
    """Raise UserError if embeddings of the modality are missing."""
    if embeddings.inputs not in ("both", wanted):
        raise UserError(
            f"embeddings={embeddings.folder}: hold those of the {embeddings.inputs} encoder only; give"
            f" model.inputs={embeddings.inputs}, or embed again with model.inputs={wanted}"
        )


def _embedding_config(cfg: DictConfig, store: LabelledStore) -> DictConfig:
    """Return the configuration of ``embed``."""
    part = copy.deepcopy(cfg)
    with open_dict(part):
        for name, node in cfg.embedding.items():  # resolved, as it refers to the trainer that it replaces
            part[name] = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
        part.input = str(store.folder)
    return part
