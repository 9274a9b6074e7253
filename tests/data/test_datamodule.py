"""From files to batches: nothing lost, nothing doubled, whoever tokenises."""

import itertools
import os
import pickle
import subprocess
import sys
from functools import partial
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from lightning.pytorch.trainer.states import RunningStage
from lightning.pytorch.utilities.data import _update_dataloader

from support import synonymous_reads
from virnucpro_pl.data.batch import OrfBatch
from virnucpro_pl.data.batching import RunFingerprints
from virnucpro_pl.data.datamodule import FastaDataModule
from virnucpro_pl.data.dataset import OrfBatches
from virnucpro_pl.data.embedding_cache import EncoderFingerprints
from virnucpro_pl.data.loading import BatchesOfRank
from virnucpro_pl.data.packed import PackedTokens
from virnucpro_pl.errors import UserError
from virnucpro_pl.models.weights.sources import DnabertSSource, read_tokenizer
from virnucpro_pl.runs.score_shards import ScoredBatch, ScoreShards

TOKEN_BUDGET = 120


@pytest.fixture(scope="module")
def reads(tmp_path_factory) -> Path:
    """Reads of many lengths, every fifth of them repeated under another name."""
    generator = np.random.default_rng(5)
    sequences = ["".join(generator.choice(list("ACGT"), length)) for length in generator.integers(3, 400, 60)]
    records = [(f"read_{number}", sequence) for number, sequence in enumerate(sequences)]
    records += [(f"again_{name}", sequence) for name, sequence in records[::5]]
    path = tmp_path_factory.mktemp("reads") / "reads.fasta"
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in records))
    return path


@pytest.fixture(scope="module")
def synonymous(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("reads") / "synonymous.fasta"
    path.write_text(synonymous_reads(seed=5))
    return path


@pytest.fixture
def datamodule(reads, mini, tmp_path):
    """Make a data module that is ready to serve batches."""
    tokenizer = partial(read_tokenizer, DnabertSSource(str(mini / "models" / "DNABERT-S")))

    def make(**changes) -> FastaDataModule:
        settings = {"chunk_length": 300, "token_budget": TOKEN_BUDGET, "num_workers": 0, "input": str(reads)} | changes
        made = FastaDataModule.from_settings(store_dir=tmp_path / "store", dna_tokenizer=tokenizer, **settings)
        made.prepare_data()
        made.setup("predict")
        return made

    return make


def sequences_in(packed: PackedTokens) -> list[tuple[int, ...]]:
    borders = packed.cu_seqlens.tolist()
    return [tuple(packed.tokens[a:b].tolist()) for a, b in itertools.pairwise(borders)]


def tokens_by_orf(batches: list[OrfBatch]) -> dict[int, tuple[tuple[int, ...], tuple[int, ...]]]:
    """What each ORF is embedded from; fails when one is there twice, or a sequence nothing is taken from."""
    found = {}
    for batch in batches:
        dna, protein = sequences_in(batch.dna), sequences_in(batch.protein)
        dna_indices, protein_indices = batch.dna_indices.tolist(), batch.protein_indices.tolist()
        assert set(dna_indices) == set(range(len(dna)))
        assert set(protein_indices) == set(range(len(protein)))
        for index, orf in enumerate(batch.orfs.tolist()):
            assert orf not in found, f"ORF {orf} is in two batches"
            found[orf] = dna[dna_indices[index]], protein[protein_indices[index]]
    return found


def test_each_orf_is_served_once_with_its_own_tokens(datamodule, mini):
    module = datamodule(deduplicate=False)
    batches = list(module.predict_dataloader())
    tokenizer = read_tokenizer(DnabertSSource(str(mini / "models" / "DNABERT-S")))
    residues = "LAGVSERTIDPKQNFYMHWC"  # fair-esm's order from 4 on

    assert len(batches) > 5
    found = tokens_by_orf(batches)

    assert sorted(found) == list(range(module.store.num_orfs))
    rows = np.arange(module.store.num_orfs)
    for row, dna, protein in zip(
        rows.tolist(), module.store.nucleotides.take(rows), module.store.proteins.take(rows), strict=True
    ):
        assert found[row][0] == tuple(tokenizer([dna])[0].tolist())
        assert found[row][1] == (0, *(4 + residues.index(letter) for letter in protein.decode()), 2)


def test_batches_keep_to_the_budget_and_lie_in_runs_of_equal_length(datamodule):
    for batch in datamodule().predict_dataloader():
        assert len(batch.protein.tokens) <= TOKEN_BUDGET
        for packed in (batch.dna, batch.protein):
            lengths = [length for _, _, length in packed.runs]
            assert lengths == sorted(set(lengths), reverse=True), "a length has more than one run"


def served_to_rank(module: FastaDataModule, rank: int, num_ranks: int) -> list[OrfBatch]:
    """Batches of one of several devices, from a loader that Lightning has taken apart and built anew."""
    loader = module.predict_dataloader()
    sampler = BatchesOfRank(loader.dataset, rank, num_ranks)
    loader = _update_dataloader(loader, sampler, mode=RunningStage.PREDICTING)
    if loader.num_workers:
        assert loader.multiprocessing_context.get_start_method() == "spawn"
    return list(loader)


@pytest.mark.filterwarnings("ignore:This DataLoader will create . worker processes")  # more than a small machine has
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize(("workers", "token_budget"), [(0, 60), (0, TOKEN_BUDGET), (0, 10**6), (1, TOKEN_BUDGET)])
def test_spawned_workers_serve_the_same_batches(datamodule, workers, token_budget, devices):
    """State kept in workers lost one in seventy ORFs of a rewrite."""
    own = list(datamodule(token_budget=token_budget).predict_dataloader())
    module = datamodule(num_workers=workers, token_budget=token_budget)

    ranks = [served_to_rank(module, rank, devices) for rank in range(devices)]

    for served in ranks:
        assert [batch.number for batch in served] == sorted(batch.number for batch in served)
    served = sorted((batch for served in ranks for batch in served), key=lambda batch: batch.number)
    assert [batch.number for batch in served] == [batch.number for batch in own] == list(range(module.plan.num_batches))
    assert tokens_by_orf(served) == tokens_by_orf(own)
    for batch, expected in zip(served, own, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(tensors_in(batch), tensors_in(expected), strict=True))


MANY_WORKERS = """
import json, sys, warnings
from functools import partial
import numpy as np
import torch
from lightning.pytorch.trainer.states import RunningStage
from lightning.pytorch.utilities.data import _update_dataloader
from virnucpro_pl.data.datamodule import FastaDataModule
from virnucpro_pl.data.loading import BatchesOfRank
from virnucpro_pl.models.weights.sources import DnabertSSource, read_tokenizer

warnings.simplefilter("ignore")  # this machine has fewer cores
torch.set_num_threads(1)
reads, store, weights = sys.argv[1:]
tokenizer = partial(read_tokenizer, DnabertSSource(weights))
for token_budget in (60, 1000000):
    module = FastaDataModule.from_settings(reads, store, tokenizer, 300, token_budget=token_budget, num_workers=1)
    module.prepare_data()
    module.setup("predict")
    for workers in (4, 8):
        for devices in (1, 2):
            served = []
            for rank in range(devices):
                module._num_workers = workers
                loader = module.predict_dataloader()
                sampler = BatchesOfRank(loader.dataset, rank, devices)
                loader = _update_dataloader(loader, sampler, RunningStage.PREDICTING)
                loader.multiprocessing_context = "fork"
                served += [orf for batch in loader for orf in batch.orfs.tolist()]
            assert sorted(served) == sorted(np.asarray(module.plan.rows).tolist()), (token_budget, workers, devices)
            print(token_budget, workers, devices, len(served))
"""


def test_nothing_is_lost_with_many_workers(reads, mini, tmp_path):
    """Forked, which starts dozens in no time; safe in a process of its own, which has no threads yet."""
    command = [sys.executable, "-c", MANY_WORKERS, reads, tmp_path / "store", mini / "models" / "DNABERT-S"]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
    assert result.returncode == 0, result.stderr
    counts = [line.split() for line in result.stdout.splitlines()]
    assert [tuple(map(int, line[1:3])) for line in counts] == [(4, 1), (4, 2), (8, 1), (8, 2)] * 2
    assert len({line[3] for line in counts}) == 1
    assert int(counts[0][3]) > 50


def tensors_in(value) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for part in value for tensor in tensors_in(part)] if isinstance(value, tuple) else []


def test_batches_travel_between_processes_without_tensors(datamodule, tmp_path):
    """Which would go through shared memory and a socket; host arrays stay what they are."""
    fingerprints = RunFingerprints(encoders=EncoderFingerprints("dna", "protein"))
    for cache in ({}, {"embedding_cache": tmp_path / "cache", "fingerprints": lambda: fingerprints}):
        batch = next(iter(datamodule(**cache).predict_dataloader()))
        sent = ForkingPickler.dumps(batch)
        assert b"rebuild" not in bytes(sent)
        arrived = pickle.loads(sent)
        assert type(arrived) is OrfBatch
        assert type(arrived.dna) is PackedTokens
        assert len(tensors_in(arrived)) == 9
        assert all(torch.equal(a, b) for a, b in zip(tensors_in(arrived), tensors_in(batch), strict=True))
        assert (arrived.number, arrived.dna.runs) == (batch.number, batch.dna.runs)
        if cache:
            assert np.array_equal(arrived.cached.dna_keys, batch.cached.dna_keys)


def test_what_is_for_the_host_stays_there(datamodule, tmp_path):
    """Keys of the cache are NumPy arrays, which a DataLoader would make tensors and Lightning move to the GPU."""
    fingerprints = RunFingerprints(encoders=EncoderFingerprints("dna", "protein"))
    module = datamodule(embedding_cache=tmp_path / "cache", fingerprints=lambda: fingerprints)
    batch = next(iter(module.predict_dataloader()))
    assert isinstance(batch.cached.dna_keys, np.ndarray)
    assert isinstance(batch.cached.protein_keys, np.ndarray)


def test_batches_are_prepared_while_one_is_in_use(datamodule, monkeypatch):
    module = datamodule(token_budget=64)
    prepared = Event()
    build = OrfBatches.__getitem__

    def build_and_tell(batches, index):
        batch = build(batches, index)
        if index == 1:
            prepared.set()
        return batch

    monkeypatch.setattr(OrfBatches, "__getitem__", build_and_tell)
    batches = iter(module.predict_dataloader())
    next(batches)
    assert prepared.wait(timeout=60), "nobody prepared the second batch before it was asked for"


def test_repeated_orfs_are_served_once_when_asked(datamodule):
    once, all_of_them = datamodule(deduplicate=True), datamodule(deduplicate=False)
    duplicates = once.store.duplicate_orfs()[:]
    unique = tokens_by_orf(list(once.predict_dataloader()))
    everything = tokens_by_orf(list(all_of_them.predict_dataloader()))

    assert len(duplicates) > 10
    assert len(set(everything.values())) == len(unique) == len(everything) - len(duplicates)
    assert set(unique) | set(duplicates[:, 0].tolist()) == set(everything)
    for repeat, first in duplicates.tolist():
        assert everything[repeat] == everything[first] == unique[first]


def test_a_batch_holds_each_protein_and_each_nucleotide_sequence_once(synonymous, datamodule):
    once, every = (datamodule(input=str(synonymous), deduplicate=wanted) for wanted in (True, False))
    once_batches, every_batches = list(once.predict_dataloader()), list(every.predict_dataloader())
    served, everything = tokens_by_orf(once_batches), tokens_by_orf(every_batches)

    for batch in once_batches:
        for packed in (batch.dna, batch.protein):
            assert len(set(sequences_in(packed))) == packed.num_sequences
    for batch in every_batches:
        assert batch.dna.num_sequences == batch.protein.num_sequences == len(batch.orfs)
    assert all(everything[orf] == tokens for orf, tokens in served.items())
    num_proteins = sum(batch.protein.num_sequences for batch in once_batches)
    assert num_proteins == once.plan.num_proteins
    assert len({protein for _, protein in everything.values()}) == num_proteins < 0.8 * len(served)
    assert once.saved() == {"orfs": len(everything) - len(served), "proteins": len(served) - num_proteins}
    assert every.saved() == {"orfs": 0, "proteins": 0}
    assert once.plan.protein_tokens == sum(len(batch.protein.tokens) for batch in once_batches)


def test_nucleotides_with_several_proteins_are_embedded_once(datamodule, fasta):
    """A codon with an N is dropped, so the slice that the protein is paired with can be of nothing but N."""
    path = fasta(*((f"read_{number}", "N" * 60 + tail) for number, tail in enumerate(("GCTGCTGCT", "GGTGCAGGA"))))
    module = datamodule(input=str(path), token_budget=1000)
    (batch,) = module.predict_dataloader()

    assert batch.dna.num_sequences < batch.protein.num_sequences == len(batch.orfs)
    assert len(tokens_by_orf([batch])) == len(batch.orfs)


def test_finished_batches_are_not_served_again(datamodule, tmp_path):
    shards = ScoreShards(tmp_path / "parts")
    module = datamodule(progress=shards)
    batches = {batch.number: batch for batch in module.predict_dataloader()}
    assert sorted(batches) == list(range(module.plan.num_batches))
    for number in (0, 3):
        orfs = batches[number].orfs.numpy()
        shards.write(module.plan.key, [ScoredBatch(number, orfs, np.zeros((len(orfs), 2), np.float32))])

    again = datamodule(progress=shards)

    assert [batch.number for batch in again.predict_dataloader()] == sorted(set(batches) - {0, 3})


@pytest.mark.parametrize(
    "change",
    [
        {"token_budget": 121},
        {"deduplicate": False},
        {"chunk_length": 299},
        {"fingerprints": lambda: RunFingerprints("other weights")},
    ],
)
def test_another_plan_or_run_has_another_key(datamodule, change):
    """Score shards of another plan must not be taken for those of this one."""
    assert datamodule().plan.key == datamodule().plan.key != datamodule(**change).plan.key


def test_input_without_orfs_serves_nothing(mini, tmp_path):
    tokenizer = partial(read_tokenizer, DnabertSSource(str(mini / "models" / "DNABERT-S")))
    module = FastaDataModule.from_settings(
        str(mini / "inputs" / "mini_no_orf.fa"), tmp_path, tokenizer, chunk_length=300
    )
    module.prepare_data()
    module.setup("predict")

    assert list(module.predict_dataloader()) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"token_budget": 0}, "data.token_budget=0"),
        ({"token_budget": -5}, "data.token_budget=-5"),
        ({"chunk_length": 0}, "chunk_length"),
        ({"chunking": "odd"}, "chunking"),
        ({"ambiguity": "guess"}, "ambiguity"),
        ({"num_workers": -1}, "num_workers"),
    ],
)
def test_settings_that_make_no_sense_are_told(datamodule, change, told):
    with pytest.raises(UserError, match=told):
        datamodule(**change).predict_dataloader()


def test_a_cache_needs_to_know_its_encoders(datamodule, tmp_path):
    with pytest.raises(ValueError, match="give fingerprints"):
        datamodule(embedding_cache=tmp_path / "cache")


def test_batches_travel_to_pinned_memory_and_devices_as_they_are(datamodule):
    batch = next(iter(datamodule().predict_dataloader()))
    moved = datamodule().transfer_batch_to_device(batch, torch.device("cpu"), 0)

    assert isinstance(moved, OrfBatch)
    assert isinstance(moved.dna, PackedTokens)
    assert moved.dna.runs == batch.dna.runs
    assert all(isinstance(number, int) for run in moved.dna.runs for number in run)
    assert torch.equal(moved.orfs, batch.orfs)
