"""Whole ``predict`` against the published procedure on the CPU, in one run.

Times are given with and without the imports, which are some seconds on both sides. The published procedure, on the same
chunks, weights and threads: DNABERT-S one sequence at a time, fair-esm's ESM2 in
padded batches of 2,048 tokens, the head in batches of 256, scores to a text file. Reading, chunking and translation
are ours in both, so the ratio concerns the encoders, the head and what surrounds them.

    python benchmarks/predict_cpu.py --golden DIR --data DIR [--chunks 3000] [--repeats 3]

``--golden`` holds small models in the published formats (default: environment variable VIRNUCPRO_GOLDEN, else
``../shared/golden`` beside the checkout), ``--data`` real genomes (VIRNUCPRO_DATA, else ``../shared/data``).
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

CHUNK_LENGTH = 300
CHECKOUT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", type=Path, default=_beside("VIRNUCPRO_GOLDEN", "golden"))
    parser.add_argument("--data", type=Path, default=_beside("VIRNUCPRO_DATA", "data"))
    parser.add_argument("--chunks", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--baseline", type=Path, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ["MKL_CBWR"] = "AVX2,STRICT"  # the same arithmetic on both sides
    if arguments.baseline:
        _published_procedure(arguments.golden, *arguments.baseline)
        return
    with tempfile.TemporaryDirectory() as name:
        _compare(arguments, Path(name))


def _beside(variable: str, name: str) -> Path:
    return Path(os.environ.get(variable, CHECKOUT.parent / "shared" / name))


def _compare(arguments: argparse.Namespace, folder: Path) -> None:
    fasta = folder / "chunks.fasta"
    _write_chunks(arguments.data, fasta, arguments.chunks)
    esm = next(path for path in (arguments.golden / "models" / "esm").glob("*.pt") if "contact" not in path.name)
    ours = [
        *(sys.executable, "-m", "virnucpro_pl", "predict", f"input={fasta}", f"output={folder / 'ours'}"),
        *("overwrite=true", "model=virnucpro_300", "trainer.accelerator=cpu"),
        f"model.dna_encoder.weights={arguments.golden / 'models' / 'DNABERT-S'}",
        f"model.protein_encoder.weights={esm}",
        f"model.head.weights={arguments.golden / 'models' / 'mlp' / '300_model.pth'}",
    ]
    theirs = [sys.executable, __file__, "--golden", str(arguments.golden), "--baseline", str(fasta), str(folder / "t")]
    whole: dict[str, list[float]] = {"published procedure": [], "predict": []}
    work: dict[str, list[float]] = {"published procedure": [], "predict": []}
    encoders: dict[str, dict[str, list[float]]] = {
        stage: {"published procedure": [], "predict": []} for stage in ("DNABERT-S", "ESM-2")
    }
    for _ in range(arguments.repeats):
        for label, command in (("published procedure", theirs), ("predict", ours)):
            begin = time.perf_counter()
            done = subprocess.run(command, check=True, capture_output=True, text=True)
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


def _published_procedure(golden: Path, fasta: Path, table: Path) -> None:
    import esm
    import numpy as np
    import torch
    from esm.data import Alphabet, FastaBatchedDataset

    from virnucpro_pl.encoders.dnabert_s import DnaTokenizer
    from virnucpro_pl.encoders.packed import pack
    from virnucpro_pl.sequence.records import read_records
    from virnucpro_pl.sequence.translation import FRAMES, find_orfs
    from virnucpro_pl.weights.checkpoints import read_file
    from virnucpro_pl.weights.convert import load_dnabert_s, load_head

    begin = time.perf_counter()
    names, nucleotides, proteins = [], [], []
    for block in read_records(str(fasta)):
        orfs = find_orfs(block.letters, block.lengths)
        names += [f"{block.names[c]}_chunk_1{FRAMES[f]}" for c, f in zip(orfs.chunk, orfs.frame, strict=True)]
        nucleotides += orfs.nucleotides
        proteins += orfs.proteins
    models = golden / "models"
    dnabert, tokenize = load_dnabert_s(models / "DNABERT-S"), DnaTokenizer(str(models / "DNABERT-S"))
    head_file = models / "mlp" / "300_model.pth"
    head = load_head(read_file(head_file), head_file)
    esm_file = next(path for path in (models / "esm").glob("*.pt") if "contact" not in path.name)
    checkpoint = read_file(esm_file)
    sizes = checkpoint.metadata["cfg"]["model"]
    alphabet = Alphabet.from_architecture("ESM-1b")
    esm2 = esm.ESM2(sizes.encoder_layers, sizes.encoder_embed_dim, sizes.encoder_attention_heads, alphabet).eval()
    state = {
        key.replace("encoder.sentence_encoder.", "").replace("encoder.", ""): value
        for key, value in checkpoint.tensors.items()
    }
    esm2.load_state_dict(state, strict=False)
    seconds = {}
    with torch.no_grad():
        start = time.perf_counter()
        dna = torch.cat([dnabert(pack(tokenize([sequence]))) for sequence in nucleotides])
        seconds["DNABERT-S"] = time.perf_counter() - start
        start = time.perf_counter()
        dataset = FastaBatchedDataset(names, [protein.decode() for protein in proteins])
        batches = dataset.get_batch_indices(2048, extra_toks_per_seq=1)
        convert = alphabet.get_batch_converter()
        protein = torch.empty(len(names), sizes.encoder_embed_dim)
        for indices in batches:
            _, texts, tokens = convert([dataset[i] for i in indices])
            hidden = esm2(tokens, repr_layers=[sizes.encoder_layers])["representations"][sizes.encoder_layers]
            for row, (index, text) in enumerate(zip(indices, texts, strict=True)):
                protein[index] = hidden[row, 1 : len(text) + 1].mean(0)
        seconds["ESM-2"] = time.perf_counter() - start
        embedding = torch.cat([dna, protein], dim=1)
        scores = torch.cat([head.scores(part) for part in embedding.split(256)]).numpy()
    with table.open("w") as stream:
        stream.write("Sequence_ID\tPrediction\tscore1\tscore2\n")
        for name, (others, virus) in zip(names, scores.astype(np.float32), strict=True):
            stream.write(f"{name}\t{'virus' if virus > others else 'others'}\t{others!s}\t{virus!s}\n")
    print(json.dumps({**seconds, "seconds": time.perf_counter() - begin}))


def _largest_difference(theirs: Path, ours: Path) -> float:
    tables = []
    for path in (theirs, ours):
        rows = (line.split("\t") for line in path.read_text().splitlines()[1:])
        tables.append({row[0]: float(row[3]) for row in rows})
    assert tables[0].keys() == tables[1].keys(), "the two sides scored different ORFs"
    return max(abs(tables[0][name] - tables[1][name]) for name in tables[0])


if __name__ == "__main__":
    main()
