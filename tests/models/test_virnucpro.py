"""Encoders and head together: agreement with every recorded run, precision, and ORFs that occur more than once."""

import json
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import Trainer

from plans import plan_of_lengths
from support import MINI
from virnucpro_pl.data.batch import OrfBatch
from virnucpro_pl.data.datamodule import FastaDataModule
from virnucpro_pl.data.packed import pack
from virnucpro_pl.data.tokenizers import DnaTokenizer, protein_tokenizer
from virnucpro_pl.errors import UserError
from virnucpro_pl.models.virnucpro import VirNucPro
from virnucpro_pl.models.weights.head_source import HeadSource
from virnucpro_pl.models.weights.sources import DnabertSSource, Esm2Source, read_tokenizer
from virnucpro_pl.runs.score_shards import ScoredBatch, ScoreShards

TOLERANCE = 1e-5


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads take longer to meet than these small models to run, most of all beside other work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def new_model(folder: Path, head: str | Path = "mlp/300_model.pth") -> VirNucPro:
    esm = next(path for path in (folder / "models" / "esm").glob("*.pt") if "contact" not in path.name)
    return VirNucPro(
        DnabertSSource(str(folder / "models" / "DNABERT-S")),
        Esm2Source(str(esm)),
        HeadSource(str(folder / "models" / head)),
        name="test",
    )


@cache
def loaded_model(folder: Path, head: str = "mlp/300_model.pth") -> VirNucPro:
    model = new_model(folder, head)
    model.configure_model()
    return model.eval()


def read_fasta(path: Path) -> dict[str, bytes]:
    """Records whose sequence is one line, as the published program writes them."""
    lines = path.read_bytes().splitlines()
    return {name[1:].decode(): sequence for name, sequence in zip(lines[::2], lines[1::2], strict=True)}


def batch_of(dna: list[np.ndarray], proteins: list[np.ndarray], rows: np.ndarray) -> OrfBatch:
    """As the data module makes them: proteins in the order of the rows, nucleotides by their tokens."""
    order = sorted(range(len(rows)), key=lambda i: -len(dna[rows[i]]))
    places = np.argsort(order)
    return OrfBatch(
        number=0,
        orfs=torch.from_numpy(rows),
        dna=pack([dna[rows[i]] for i in order]),
        dna_indices=torch.from_numpy(places),
        protein=pack([proteins[row] for row in rows]),
        protein_indices=torch.arange(len(rows)),
    )


def embed_and_score(model: VirNucPro, dna, proteins, token_budget: int = 16384) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings and scores in the order given, by way of the plan."""
    lengths = np.array([len(tokens) - 2 for tokens in proteins])
    plan = plan_of_lengths(lengths, lengths, token_budget)
    embeddings = np.full((len(dna), model.head.num_inputs), np.nan, dtype=np.float32)
    scores = np.full((len(dna), 2), np.nan, dtype=np.float32)
    with torch.inference_mode():
        for number in range(plan.num_batches):
            batch = batch_of(dna, proteins, plan.batch(number))
            embeddings[batch.orfs] = model.embed(batch).numpy()
            scores[batch.orfs] = model.predict_step(batch, number).scores.numpy()
    return embeddings, scores


def check_recorded_case(folder: Path, case: Path) -> int:
    """Compare token ids, embeddings, labels and scores of a recorded run; return its number of ORFs."""
    with np.load(case / "embeddings.npz") as arrays:
        recorded = dict(arrays)
    ids = recorded["ids"].tolist()
    nucleotides, proteins = (read_fasta(case / f"identified_{kind}") for kind in ("nucleotide.fa", "protein.faa"))
    head = json.loads((case / "run.json").read_text())["mlp"]
    model = loaded_model(folder, head)
    dna = _dna_tokenizer(folder)([nucleotides[name] for name in ids])
    protein = protein_tokenizer()([proteins[name] for name in ids])

    if "token_offsets" in recorded:  # of the largest runs only some embeddings were kept
        borders = recorded["token_offsets"].tolist()
        for name, tokens, start, end in zip(ids, dna, borders[:-1], borders[1:], strict=True):
            assert tokens.tolist() == recorded["token_ids"][start:end].tolist(), f"{case.name}: {name}"
    embeddings, scores = embed_and_score(model, dna, protein)
    expected = np.concatenate([recorded["dnabert_s"], recorded["esm2"]], axis=1)
    np.testing.assert_allclose(embeddings, expected, atol=TOLERANCE, rtol=0, err_msg=case.name)
    lines = (case / "prediction_results.txt").read_text(encoding="utf-8").splitlines()[1:]
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in lines}
    for name, found in zip(ids, scores, strict=True):
        label, *printed = rows[name]
        np.testing.assert_allclose(found, np.float32(printed), atol=TOLERANCE, rtol=0, err_msg=f"{case.name}: {name}")
        assert ("virus" if found[1] > found[0] else "others") == label, f"{case.name}: {name}"
    return len(ids)


@cache
def _dna_tokenizer(folder: Path) -> DnaTokenizer:
    return DnabertSSource(str(folder / "models" / "DNABERT-S")).tokenizer()


def recorded_cases(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("expected/*/prediction_results.txt"))


@pytest.mark.parametrize("case", recorded_cases(MINI), ids=lambda case: case.name)
def test_committed_runs_agree(case):
    assert check_recorded_case(MINI, case) > 0


def test_all_recorded_runs_agree(golden):
    # Ids that occur twice cannot be told apart in the recorded files; the program as a whole is compared on them.
    cases = [case for case in recorded_cases(golden) if not case.name.startswith("dup_ids")]

    assert len(cases) > 70
    assert sum(check_recorded_case(golden, case) for case in cases) > 2500


def test_the_size_of_the_batches_changes_nothing(mini):
    case = mini / "expected" / "mini__300"
    nucleotides, proteins = (read_fasta(case / f"identified_{kind}") for kind in ("nucleotide.fa", "protein.faa"))
    dna = _dna_tokenizer(mini)(list(nucleotides.values()))
    protein = protein_tokenizer()(list(proteins.values()))
    one_by_one = embed_and_score(loaded_model(mini), dna, protein, token_budget=1)
    together = embed_and_score(loaded_model(mini), dna, protein)

    for found, wanted in zip(together, one_by_one, strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-6, rtol=0)


# Through Lightning, and in less than float32


@pytest.fixture(scope="module")
def reads(tmp_path_factory) -> Path:
    """Reads with repeats, as PCR leaves them: some whole, one in lower case, some reverse-complemented."""
    generator = np.random.default_rng(11)
    sequences = ["".join(generator.choice(list("ACGT"), length)) for length in generator.integers(60, 320, 40)]
    turned = [sequence[::-1].translate(str.maketrans("ACGT", "TGCA")) for sequence in sequences[:10]]
    sequences += [*sequences[:10], sequences[3].lower(), *turned]
    path = tmp_path_factory.mktemp("reads") / "reads.fasta"
    path.write_text("".join(f">read_{number}\n{sequence}\n" for number, sequence in enumerate(sequences)))
    return path


class Run:
    """Scores of all ORFs of the reads, through the trainer."""

    def __init__(
        self, model: VirNucPro, reads: Path, folder: Path, precision: str = "32-true", deduplicate: bool = True
    ):
        tokenizer = partial(read_tokenizer, DnabertSSource(str(MINI / "models" / "DNABERT-S")))
        self.datamodule = FastaDataModule.from_settings(
            str(reads), folder, tokenizer, chunk_length=300, token_budget=500, deduplicate=deduplicate, num_workers=0
        )
        trainer = Trainer(
            accelerator="cpu",
            precision=precision,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        self.batches = trainer.predict(model, datamodule=self.datamodule)
        shards = ScoreShards(folder / f"parts {precision} {deduplicate}")
        plan, duplicates = self.datamodule.plan, self.datamodule.duplicates
        shards.write(plan.key, [ScoredBatch(b.number, b.orfs.numpy(), b.scores.numpy()) for b in self.batches])
        self.scores = np.full((self.datamodule.store.num_orfs, 2), np.nan, dtype=np.float32)
        shards.gather(plan, duplicates.blocks() if duplicates else (), self.scores)


through_lightning = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*", "ignore:.*infer the batch.*", "ignore:.*trying to infer the `batch_size`.*"
)


@through_lightning
def test_embedding_repeated_orfs_once_gives_the_same_scores(mini, reads, tmp_path):
    once = Run(new_model(mini), reads, tmp_path, deduplicate=True)
    every = Run(new_model(mini), reads, tmp_path, deduplicate=False)
    num_repeats = len(once.datamodule.store.duplicate_orfs())

    assert num_repeats > 10
    assert sum(len(batch.orfs) for batch in once.batches) == len(every.scores) - num_repeats
    assert sum(len(batch.orfs) for batch in every.batches) == len(every.scores)
    np.testing.assert_allclose(once.scores, every.scores, atol=1e-6, rtol=0)


@through_lightning
def test_a_run_through_lightning_equals_plain_calls(mini, reads, tmp_path):
    run = Run(new_model(mini), reads, tmp_path)
    store = run.datamodule.store
    rows = np.arange(store.num_orfs)
    dna = _dna_tokenizer(mini)(store.nucleotides.take(rows))
    _, scores = embed_and_score(loaded_model(mini), dna, protein_tokenizer()(store.proteins.take(rows)))

    np.testing.assert_allclose(run.scores, scores, atol=2e-6, rtol=0)


@through_lightning
@pytest.mark.parametrize(
    ("precision", "dtype", "largest_change"), [("16-true", torch.float16, 0.01), ("bf16-true", torch.bfloat16, 0.06)]
)
def test_less_precision_keeps_the_calls_and_the_head_in_float32(
    mini, reads, tmp_path, precision, dtype, largest_change
):
    model = new_model(mini)
    run = Run(model, reads, tmp_path, precision)
    exact = Run(new_model(mini), reads, tmp_path)

    for encoder in (model.dna_encoder, model.protein_encoder):
        assert {parameter.dtype for parameter in encoder.parameters()} == {dtype}
    assert {tensor.dtype for tensor in model.head.state_dict().values()} == {torch.float32, torch.int64}
    assert run.scores.dtype == np.float32
    assert 0 < np.abs(run.scores - exact.scores).max() < largest_change
    same_call = (run.scores > 0.5) == (exact.scores > 0.5)
    assert same_call[np.abs(exact.scores - 0.5) > largest_change].all()
    assert same_call.mean() > 0.9


@pytest.mark.parametrize("precision", ["half", "bfloat16"])
def test_less_precision_keeps_the_direction_of_the_embeddings(mini, precision):
    case = mini / "expected" / "mini__300"
    nucleotides, proteins = (read_fasta(case / f"identified_{kind}") for kind in ("nucleotide.fa", "protein.faa"))
    dna = _dna_tokenizer(mini)(list(nucleotides.values()))
    protein = protein_tokenizer()(list(proteins.values()))
    model = new_model(mini)
    model.configure_model()
    getattr(model, precision)()
    model.on_predict_start()
    exact, exact_scores = embed_and_score(loaded_model(mini), dna, protein)

    rounded, rounded_scores = embed_and_score(model, dna, protein)

    width = model.dna_encoder.embedding_width
    for part in (slice(None, width), slice(width, None)):
        a, b = exact[:, part].astype(np.float64), rounded[:, part].astype(np.float64)
        cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert cosine.min() > 0.999
    flipped = (rounded_scores[:, 1] > rounded_scores[:, 0]) != (exact_scores[:, 1] > exact_scores[:, 0])
    assert np.abs(exact_scores[flipped, 1] - 0.5).max(initial=0) < (0.005 if precision == "half" else 0.03)
    assert flipped.mean() < 0.06


def test_weights_are_read_once_and_not_before_they_are_needed(mini):
    model = new_model(mini)
    assert model.head is model.dna_encoder is model.protein_encoder is None

    model.configure_model()
    first = model.dna_encoder
    model.configure_model()

    assert model.dna_encoder is first


def test_an_encoder_that_was_left_out_and_is_needed_is_told(mini):
    model = new_model(mini)
    model._cached_widths = 48, 32  # as found in the embedding cache
    model.configure_model()
    tokens = [np.array([0, 5, 2])]

    assert model.dna_encoder is model.protein_encoder is None
    with pytest.raises(RuntimeError, match="lost embeddings"):
        model.embed(batch_of(tokens, tokens, np.array([0])))


def test_a_head_that_does_not_fit_the_encoders_is_told(mini, golden):
    model = new_model(mini, golden / "models" / "mlp" / "300_model.pth")

    with pytest.raises(UserError, match=r"takes 128 numbers.*48 \(DNA\) \+ 32 \(protein\) = 80"):
        model.configure_model()
