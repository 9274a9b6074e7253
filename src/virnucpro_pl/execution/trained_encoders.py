"""Fine-tuned encoders: unfrozen before training, written in the published formats after it."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from virnucpro_pl.data.batch import Modality
from virnucpro_pl.data.dataset import Tokenizers
from virnucpro_pl.data.embeddings import Embeddings
from virnucpro_pl.data.tokenizers import protein_tokenizer
from virnucpro_pl.errors import UserError
from virnucpro_pl.files.digests import sha256_of
from virnucpro_pl.files.output_files import ENCODER_FILES
from virnucpro_pl.models.virnucpro import VirNucPro
from virnucpro_pl.models.weights.encoder_export import write_dnabert_s, write_esm2
from virnucpro_pl.training.fine_tuning import check_settings, merge, unfreeze


def fine_tuning_options(model: VirNucPro, settings: DictConfig) -> dict[str, Any]:
    """Return the arguments of ``unfreeze`` for the encoders of a model.

    Raises:
        UserError: a setting is out of range.
    """
    if model.numerics.fp8 or model.numerics.exact:
        raise UserError("fine_tuning: model.fp8 and model.exact are for prediction only; leave them out")
    options = {str(key): value for key, value in settings.items() if key != "lr"}
    check_settings(**options)
    return options


def load_encoders(model: VirNucPro, settings: DictConfig) -> Tokenizers:
    """Load and unfreeze the encoders of a model, and return their tokenizers.

    Raises:
        UserError: a setting is out of range, or weights cannot be read.
    """
    options = fine_tuning_options(model, settings)
    model.configure_model()
    for encoder in (model.dna_encoder, model.protein_encoder):
        if encoder is not None:
            unfreeze(encoder, **options)
    dna = model.dna_source.tokenizer() if model.inputs != "protein" else None
    return dna, protein_tokenizer() if model.inputs != "dna" else None


def export_encoders(model: VirNucPro, folder: Path) -> dict[str, Any]:
    """Write the fine-tuned encoders with merged adapters, and return their entries in the head file."""
    described: dict[str, Any] = {}
    if model.dna_encoder is not None:
        path = folder / ENCODER_FILES["dna_encoder"]
        write_dnabert_s(merge(model.dna_encoder), model.dna_source.locate(), path)
        described["dna_encoder"] = _described(path, model.dna_encoder.embedding_width)
    if model.protein_encoder is not None:
        path = folder / ENCODER_FILES["protein_encoder"]
        write_esm2(merge(model.protein_encoder), path)
        described["protein_encoder"] = _described(path, model.protein_encoder.embedding_width)
    return described


def describe_encoders(embeddings: Embeddings, inputs: Modality) -> dict[str, Any]:
    """Return the entries of encoders in the head file."""
    unused = {"both": "", "dna": "protein_encoder", "protein": "dna_encoder"}[inputs]
    encoders = embeddings.manifest["encoders"]
    return {
        name: {key: encoder[key] for key in ("weights", "sha256", "width")}
        for name, encoder in encoders.items()
        if name != unused
    }


def _described(path: Path, width: int) -> dict[str, Any]:
    return {"weights": path.name, "sha256": sha256_of(path), "width": width}
