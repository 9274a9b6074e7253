"""Whole ``predict`` against the published procedure on the CPU, in one run.

Times are given with and without the imports, which are some seconds on both sides. Each side is started as its users
start it, with the threads and the MKL settings that it chooses by itself. The published procedure, on the same chunks
and weights: frames found by a loop over codons; DNABERT-S one sequence at a time, written as its remote code computes
it (ours is not used); fair-esm's ESM2 in padded batches of 2,048 tokens; embeddings to files and merged from them; the
head in batches of 256; scores to a text file. FASTA is read by our reader on both sides.

    python benchmarks/predict_cpu.py --golden DIR --data DIR [--size golden] [--chunks 3000] [--repeats 3]

``--golden`` holds small models in the published formats (default: environment variable VIRNUCPRO_GOLDEN, else
``../shared/golden`` beside the checkout); with ``--size 35m`` or ``150m`` random weights at the size of that ESM-2, and
of the whole DNABERT-S, are used instead, with the golden tokenizer. ``--data`` holds real genomes (VIRNUCPRO_DATA, else
``../shared/data``).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from random_models import ESM2, write_models

if TYPE_CHECKING:
    from torch import Tensor

    from virnucpro_pl.models.encoders.dnabert_s import DnabertS
    from virnucpro_pl.models.head import Head

CHUNK_LENGTH = 300
CHECKOUT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", type=Path, default=_beside("VIRNUCPRO_GOLDEN", "golden"))
    parser.add_argument("--data", type=Path, default=_beside("VIRNUCPRO_DATA", "data"))
    parser.add_argument("--size", choices=["golden", *ESM2], default="golden")
    parser.add_argument("--chunks", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--baseline", type=Path, nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.baseline:
        _published_procedure(*arguments.baseline)
        return
    with tempfile.TemporaryDirectory() as name:
        models = arguments.golden / "models"
        if arguments.size != "golden":
            write_models(Path(name) / "models", models / "DNABERT-S", arguments.size)
            models = Path(name) / "models"
        _compare(arguments, models, Path(name))


def _beside(variable: str, name: str) -> Path:
    return Path(os.environ.get(variable, CHECKOUT.parent / "shared" / name))


def _compare(arguments: argparse.Namespace, models: Path, folder: Path) -> None:
    fasta = folder / "chunks.fasta"
    _write_chunks(arguments.data, fasta, arguments.chunks)
    ours = [
        *(sys.executable, "-m", "virnucpro_pl", "predict", f"input={fasta}", f"output={folder / 'ours'}"),
        *("overwrite=true", "model=virnucpro_300", "trainer.accelerator=cpu"),
        f"model.dna_encoder.weights={models / 'DNABERT-S'}",
        f"model.protein_encoder.weights={_esm_file(models)}",
        f"model.head.weights={models / 'mlp' / '300_model.pth'}",
    ]
    theirs = [sys.executable, __file__, "--baseline", str(models), str(fasta), str(folder / "t")]
    # As users start either side: predict sets MKL_CBWR for itself and pays for it, the published scripts do not.
    environment = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    whole: dict[str, list[float]] = {"published procedure": [], "predict": []}
    work: dict[str, list[float]] = {"published procedure": [], "predict": []}
    encoders: dict[str, dict[str, list[float]]] = {
        stage: {"published procedure": [], "predict": []} for stage in ("DNABERT-S", "ESM-2")
    }
    for _ in range(arguments.repeats):
        for label, command in (("published procedure", theirs), ("predict", ours)):
            begin = time.perf_counter()
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            whole[label].append(time.perf_counter() - begin)
            run_file = folder / "ours" / "run.json"
            figures = json.loads(run_file.read_text() if label == "predict" else done.stdout)
            work[label].append(figures["seconds"])
            for stage in encoders:
                seconds = figures["figures"]["stages"][stage]["seconds"] if label == "predict" else figures[stage]
                encoders[stage][label].append(seconds)
    for name, seconds in (*encoders.items(), ("without imports", work), ("whole process", whole)):
        for label, taken in seconds.items():
            print(f"{name:<16} {label:<20} {statistics.median(taken):8.2f} s (median of {len(taken)})")
        ratios = [a / b for a, b in zip(*seconds.values(), strict=True)]
        each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"{name:<16} ratio {statistics.median(ratios):.2f} (pair by pair: {each})")
    print(
        f"largest score difference {_largest_difference(folder / 't', folder / 'ours' / 'prediction_results.txt'):.1e}"
    )


def _write_chunks(data: Path, fasta: Path, count: int) -> None:
    """Cut the first chunks of every genome in turn, viral and not, each a record of its own."""
    from virnucpro_pl.sequence.records import read_records

    written = 0
    files = sorted(data.glob("*viral/*.fa.gz"))
    with fasta.open("w") as stream:
        for path in files * 100:
            for block in read_records(str(path)):
                letters = block.letters.decode("latin-1")
                for start in range(0, min(len(letters), 60 * CHUNK_LENGTH), CHUNK_LENGTH):
                    stream.write(f">chunk_{written}\n{letters[start : start + CHUNK_LENGTH]}\n")
                    written += 1
                    if written == count:
                        return
                break


def _published_procedure(models: Path, fasta: Path, table: Path) -> None:
    import torch
    from sequence_half import chunks, orfs

    from virnucpro_pl.sequence.records import read_records

    _import_what_it_imports()
    begin = time.perf_counter()
    names, nucleotides, proteins = [], [], []
    for block in read_records(str(fasta)):
        ends = block.lengths.cumsum()
        for name, start, end in zip(block.names, ends - block.lengths, ends, strict=True):
            for number, chunk in enumerate(chunks(block.letters[start:end].decode()), start=1):
                for frame, bases, protein in orfs(chunk):
                    names.append(f"{name}_chunk_{number}{frame}")
                    nucleotides.append(bases)
                    proteins.append(protein)
    seconds = {}
    with torch.no_grad():
        for stage, embed, sequences in (("DNABERT-S", _embed_dna, nucleotides), ("ESM-2", _embed_proteins, proteins)):
            start = time.perf_counter()
            embed(models, names, sequences, table.with_suffix(f".{stage}.pt"))
            seconds[stage] = time.perf_counter() - start
        dna = torch.load(table.with_suffix(".DNABERT-S.pt"))
        protein = torch.load(table.with_suffix(".ESM-2.pt"))
        dna_by_name = {entry["label"]: torch.tensor(entry["mean_representation"]) for entry in dna["data"]}
        protein_by_name = dict(zip(protein["proteins"], protein["data"], strict=True))
        embedding = torch.stack([torch.cat([dna_by_name[name], protein_by_name[name]]) for name in names])
        head = _head(models / "mlp" / "300_model.pth")
        scores = torch.cat([head.scores(part) for part in embedding.split(256)]).numpy()
    with table.open("w") as stream:
        stream.write("Sequence_ID\tPrediction\tscore1\tscore2\n")
        for name, (others, virus) in zip(names, scores, strict=True):
            stream.write(f"{name}\t{'virus' if virus > others else 'others'}\t{others!s}\t{virus!s}\n")
    print(json.dumps({**seconds, "seconds": time.perf_counter() - begin}))


def _import_what_it_imports() -> None:
    """Import the packages whose import does not count, as it does not for predict."""
    import esm
    import transformers

    assert esm.ESM2
    assert transformers.AutoTokenizer


def _head(path: Path) -> "Head":
    from virnucpro_pl.models.weights.checkpoints import read_file
    from virnucpro_pl.models.weights.convert import load_head

    return load_head(read_file(path), path)


def _embed_dna(models: Path, names: list[str], sequences: list[str], path: Path) -> None:
    """One sequence per forward pass; means as lists of Python floats."""
    import torch
    from transformers import AutoTokenizer

    from virnucpro_pl.models.weights.convert import load_dnabert_s

    tokenizer = AutoTokenizer.from_pretrained(models / "DNABERT-S", local_files_only=True)
    encoder = MosaicBertAsPublished(load_dnabert_s(models / "DNABERT-S"))
    data = []
    for name, sequence in zip(names, sequences, strict=True):
        hidden = encoder(tokenizer(sequence, return_tensors="pt")["input_ids"])
        data.append({"label": name, "mean_representation": hidden.mean(dim=1).squeeze().tolist()})
    torch.save({"nucleotide": names, "data": data}, path)


class MosaicBertAsPublished:
    """The forward pass of DNABERT-S's remote code without its GPU kernel.

    The MLP takes unpadded tokens; every layer pads them for attention, which is plain products with a bias of ALiBi
    and mask, and unpads what comes out.
    """

    def __init__(self, encoder: "DnabertS"):
        import torch

        from virnucpro_pl.models.encoders.attention import alibi_slopes

        self.encoder = encoder
        position = torch.arange(512)
        slopes = torch.tensor(alibi_slopes(encoder.config.num_heads))
        self.alibi = -slopes[None, :, None, None] * (position[:, None] - position).abs()

    def __call__(self, ids: "Tensor") -> "Tensor":
        """(B, L) tokens -> (B, L, D)."""
        import torch
        import torch.nn.functional as F

        mask = torch.ones_like(ids)
        x = self.encoder.embeddings(ids)
        size, length, width = x.shape
        indices = torch.nonzero(mask.flatten()).flatten()
        bias = (1.0 - mask[:, None, None, :]) * -10000.0 + self.alibi[:, :, :length, :length]
        x = x.flatten(0, 1)[indices]

        def pad(values: "Tensor") -> "Tensor":
            padded = torch.zeros(size * length, values.shape[-1])
            padded[indices] = values
            return padded.view(size, length, -1)

        for layer in self.encoder.layers:
            qkv = pad(layer.Wqkv(x)).unflatten(-1, (3, layer.num_heads, -1))
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            weights = F.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + bias, dim=-1)
            attended = (weights @ v).transpose(1, 2).reshape(size * length, width)[indices]
            x = layer.attention_norm(layer.dense(attended) + x)
            gate, value = layer.gated_layers(x).chunk(2, dim=-1)
            x = layer.mlp_norm(layer.wo(F.gelu(gate) * value) + x)
        return pad(x)


def _embed_proteins(models: Path, names: list[str], sequences: list[str], path: Path) -> None:
    """fair-esm's own model on padded batches of 2,048 tokens."""
    import esm
    import torch
    from esm.data import Alphabet, FastaBatchedDataset

    from virnucpro_pl.models.weights.checkpoints import read_file

    checkpoint = read_file(_esm_file(models))
    sizes = checkpoint.metadata["cfg"]["model"]
    layer = sizes.encoder_layers
    alphabet = Alphabet.from_architecture("ESM-1b")
    esm2 = esm.ESM2(layer, sizes.encoder_embed_dim, sizes.encoder_attention_heads, alphabet).eval()
    state = {
        key.replace("encoder.sentence_encoder.", "").replace("encoder.", ""): value
        for key, value in checkpoint.tensors.items()
    }
    esm2.load_state_dict(state, strict=False)
    dataset = FastaBatchedDataset(names, sequences)
    batches = dataset.get_batch_indices(2048, extra_toks_per_seq=1)
    labels, data = [], []
    for own, texts, tokens in torch.utils.data.DataLoader(
        dataset, collate_fn=alphabet.get_batch_converter(), batch_sampler=batches
    ):
        hidden = esm2(tokens, repr_layers=[layer], return_contacts=False)["representations"][layer]
        for row, (label, text) in enumerate(zip(own, texts, strict=True)):
            labels.append(label)
            data.append(hidden[row, 1 : len(text) + 1].mean(0).clone())
    torch.save({"proteins": labels, "data": data}, path)


def _esm_file(models: Path) -> Path:
    return next(path for path in (models / "esm").glob("*.pt") if "contact" not in path.name)


def _largest_difference(theirs: Path, ours: Path) -> float:
    tables = []
    for path in (theirs, ours):
        rows = (line.split("\t") for line in path.read_text().splitlines()[1:])
        tables.append({row[0]: float(row[3]) for row in rows})
    assert tables[0].keys() == tables[1].keys(), "the two sides scored different ORFs"
    return max(abs(tables[0][name] - tables[1][name]) for name in tables[0])


if __name__ == "__main__":
    main()
