"""The ``train`` command."""

import logging
import math
import time
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning import Trainer, seed_everything
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from virnucpro_pl import __version__
from virnucpro_pl.configuration.hydra_config import build
from virnucpro_pl.data.embeddings import Embeddings
from virnucpro_pl.errors import OutOfMemoryError, UserError, is_out_of_memory
from virnucpro_pl.execution.dataset_embeddings import embeddings_of, files_of, fingerprint_of_encoders
from virnucpro_pl.execution.provenance import device_text, provenance
from virnucpro_pl.execution.train_resuming import (
    build_optimizer,
    check_monitors,
    class_weights,
    training_fingerprint,
    usable_checkpoint,
)
from virnucpro_pl.execution.trained_encoders import (
    describe_encoders,
    export_encoders,
    fine_tuning_options,
    load_encoders,
)
from virnucpro_pl.execution.trainer import build_fit_trainer
from virnucpro_pl.files.durable import announced_to
from virnucpro_pl.files.output_files import CURVES, EMBEDDINGS_FOLDER, FILES
from virnucpro_pl.host.stage_clock import StageClock
from virnucpro_pl.models.head import Head
from virnucpro_pl.models.virnucpro import VirNucPro
from virnucpro_pl.models.weights.head_bundle import HeadInfo, write_head
from virnucpro_pl.models.weights.head_source import HeadSource
from virnucpro_pl.models.weights.locked import fetched_digest_cache
from virnucpro_pl.results.publishing import files_in
from virnucpro_pl.results.run_check import check_reported
from virnucpro_pl.results.summary import DEMO_WARNING
from virnucpro_pl.runs.run_folder import RunFolder
from virnucpro_pl.training.batches import EmbeddedOrfs, TokenisedOrfs
from virnucpro_pl.training.curves import plot_curves
from virnucpro_pl.training.datamodule import LabelledOrfs
from virnucpro_pl.training.labelled_store import LabelledStore
from virnucpro_pl.training.module import EncoderTraining, HeadTraining
from virnucpro_pl.training.report import LEAKING, log_result, log_split, sizes_of
from virnucpro_pl.training.splits import TRAIN, Split, SplitSettings, split_records

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> float:
    """Train a head.

    Returns:
        Average precision on the validation split, which a sweep maximises; NaN on ranks other than the first.

    Raises:
        UserError: the configuration, the dataset or the weights have a mistake.
        OutOfMemoryError: the device has too little memory.
    """
    began = time.monotonic()
    store = LabelledStore.checked(Path(cfg.input))
    settings: SplitSettings = build(cfg.split)
    settings.check()
    check_monitors(cfg)
    trainer = build_fit_trainer(cfg)
    if not trainer.is_global_zero:
        logging.getLogger().setLevel(logging.WARNING)  # the first rank logs for all
    output = Path(cfg.paths.output_dir)
    folder = RunFolder(output, Path(cfg.paths.work_dir), FILES["train"])
    run = _Run(cfg, store, settings, trainer, output, began)
    if not trainer.is_global_zero:
        run.split()
        run.fit()
        return math.nan
    try:
        folder.enter(cfg.overwrite)
        folder.check(training_fingerprint(cfg, store, trainer))
        fingerprint = run.fingerprint()
        folder.check(fingerprint)
        if folder.finished is None:
            run.split()
            if cfg.overwrite:
                folder.clear()
            folder.claim(fingerprint)
            with announced_to(folder.note_appearing):
                record = run.fit()
            folder.finish({**record, "identity": fingerprint})
        else:
            folder.check_files()
            check_reported(folder.finished, "train", output)
            log.info("Finished already, %s; nothing to do", folder.finished["started"])
    finally:
        folder.leave()
    assert folder.finished is not None
    return log_result(folder.finished, output)


class _Run:
    """Run of one training."""

    def __init__(
        self,
        cfg: DictConfig,
        store: LabelledStore,
        settings: SplitSettings,
        trainer: Trainer,
        output: Path,
        began: float,
    ):
        self._cfg = cfg
        self._store = store
        self._settings = settings
        self._trainer = trainer
        self._output = output
        self._began = began
        # Check all settings before an earlier head is removed.
        class_weights(cfg.class_weights, store.labels)
        self._learning = build_optimizer(cfg)
        self._clock = StageClock()
        self._model: VirNucPro = build(cfg.model, head=None, clock=self._clock)
        self._head_source: HeadSource = build(cfg.model.head)
        self._check()

    def _check(self) -> None:
        """Raise UserError for mistakes in the settings of training."""
        cfg = self._cfg
        width = None
        if cfg.fine_tuning.mode is not None:
            fine_tuning_options(self._model, cfg.fine_tuning)
        elif cfg.embeddings is not None:
            width = self._embeddings().width(self._model.inputs)
        elif self._trainer.world_size > 1:
            raise UserError("trainer.devices: several devices need embeddings=FOLDER; run `embed` on them first")
        self._head(width)

    def _embeddings(self) -> Embeddings:
        cfg = self._cfg
        computed = self._output / EMBEDDINGS_FOLDER
        return embeddings_of(cfg, self._store, self._model, self._clock, cfg.embeddings, computed)

    def fingerprint(self) -> dict[str, Any]:
        """Return the fingerprint of the training, with the weights of the encoders."""
        digest_cache = fetched_digest_cache(self._model) or Path(self._cfg.paths.work_dir) / "digests.json"
        encoders = fingerprint_of_encoders(self._cfg, self._store, self._model, self._clock, digest_cache)
        return training_fingerprint(self._cfg, self._store, self._trainer) | encoders

    def split(self) -> None:
        """Split the dataset and log the splits."""
        log.info("Device: %s", device_text(self._trainer))
        self._split = split_records(self._store, self._settings, self._cfg.seed)
        self._parts = self._split.parts[self._store.orf_records]
        self._labels = self._store.labels[self._store.orf_records]
        log_split(self._split, self._parts, self._labels)

    def fit(self) -> dict[str, Any]:
        """Train, write the head, and return the run record."""
        cfg, split, parts, labels = self._cfg, self._split, self._parts, self._labels
        module, data, encoders = self._prepare(parts, labels)
        self._fit(module, data)
        if not self._trainer.is_global_zero:
            return {}
        best = self._keep_best(module)
        if isinstance(module, EncoderTraining):
            encoders = export_encoders(module.model, self._output)
        info = self._info(module, best, encoders, split)
        write_head(self._output, module.head, info)
        split.save(self._output, cfg.seed)
        plot_curves(module.history, int(best["epoch"]), self._output / CURVES)
        return {
            **provenance(cfg, self._began),
            "warnings": [*([DEMO_WARNING] if info.demo else []), *([LEAKING] if split.leaks else [])],
            "model": {"name": self._model.name, "inputs": self._model.inputs, "encoders": encoders},
            "dataset": info.data,
            "split": {"by": split.by, "leaking": split.leaks, "dropped": split.num_dropped, **sizes_of(parts, labels)},
            "engine": {
                "precision": str(self._trainer.precision),
                "device": str(self._trainer.strategy.root_device),
                "torch": torch.__version__,
                "lightning": lightning.__version__,
            },
            "figures": {**best, "epochs": len(module.history)},
            "history": module.history,
            **files_in(self._output, files_of(cfg, "train")),
        }

    def _prepare(
        self, parts: NDArray[np.int8], labels: NDArray[np.uint8]
    ) -> tuple[HeadTraining, LabelledOrfs, dict[str, Any]]:
        """Return the module, its data module, and the entries of encoders that are not trained."""
        cfg = self._cfg
        optimizer, scheduler = self._learning
        arguments = {
            "optimizer": optimizer,
            "scheduler": scheduler,
            "class_weights": class_weights(cfg.class_weights, labels[parts == TRAIN]),
            "seed": cfg.seed,
        }
        if cfg.fine_tuning.mode is not None:
            tokenizers = load_encoders(self._model, cfg.fine_tuning)
            tokens = TokenisedOrfs(self._store, labels, tokenizers)
            head = self._head(self._model.embedding_width())
            module = EncoderTraining(self._model, head, encoder_lr=cfg.fine_tuning.lr, **arguments)
            data = LabelledOrfs(tokens, parts, cfg.batch_size, cfg.seed, scoring_batch_size=cfg.batch_size)
            return module, data, {}
        embeddings = self._embeddings()
        inputs = self._model.inputs
        head = self._head(embeddings.width(inputs))
        data = LabelledOrfs(EmbeddedOrfs(embeddings, labels, inputs), parts, cfg.batch_size, cfg.seed)
        return HeadTraining(head, **arguments), data, describe_encoders(embeddings, inputs)

    def _head(self, num_inputs: int | None) -> Head:
        """Return the head to train; without a number of inputs, for checks only."""
        seed_everything(self._cfg.seed, workers=True, verbose=False)  # here, as embedding may have drawn random numbers
        if self._head_source.weights is None:
            return self._head_source.new(num_inputs or 1)
        head = self._head_source.load().requires_grad_(True)
        if num_inputs is not None and head.num_inputs != num_inputs:
            raise UserError(
                f"model.head.weights={self._head_source.weights} takes {head.num_inputs} numbers, but the embeddings"
                f" have {num_inputs}; choose a head trained on these encoders, or leave it out for a new one"
            )
        return head

    def _fit(self, module: HeadTraining, data: LabelledOrfs) -> None:
        last = usable_checkpoint(self._output / "checkpoints")
        if last:
            log.info("Resuming from %s", last)
        try:
            self._trainer.fit(module, datamodule=data, ckpt_path=last, weights_only=True)
        except Exception as error:
            if is_out_of_memory(error) and not isinstance(error, OutOfMemoryError):
                device = self._trainer.strategy.root_device
                raise OutOfMemoryError(f"out of memory on {device}: give a smaller batch_size") from error
            raise

    def _keep_best(self, module: HeadTraining) -> dict[str, Any]:
        """Load the best weights into the module, and return their metrics."""
        best = self._output / "checkpoints" / "best.ckpt"
        last = best.with_name("last.ckpt")
        if not last.exists():  # the best checkpoint is of the last epoch
            last = best
        end, state = (torch.load(path, map_location="cpu", weights_only=True) for path in (last, best))
        module.history = end["history"]  # spawned ranks have their own
        module.cpu().load_state_dict(state["state_dict"], strict=module.strict_loading)
        module.eval()
        return dict(next(row for row in module.history if row["epoch"] == state["epoch"]))

    def _info(self, module: HeadTraining, best: dict[str, Any], encoders: dict[str, Any], split: Split) -> HeadInfo:
        dataset = self._store.dataset
        used = ("optimizer", "scheduler", "fine_tuning", "split", "batch_size", "class_weights", "seed")
        recipe = {
            key: OmegaConf.to_container(node) if OmegaConf.is_config(node := self._cfg[key]) else node for key in used
        }
        return HeadInfo(
            inputs=self._model.inputs,
            chunk_lengths=(int(self._store.lengths.min()), int(self._store.lengths.max())),
            encoders=encoders,
            metrics=best,
            data={"key": dataset["key"], "rule": dataset["settings"].get("rule"), "counts": dataset["counts"]},
            training={
                **recipe,
                "version": __version__,
                "split_by": split.by,
                "leaking": split.leaks,
                "epochs": len(module.history),
                "hidden_dim": module.head.hidden_layer.out_features,
            },
            demo=self._model.demo,
        )
