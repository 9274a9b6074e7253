"""What only a GPU can show; on a machine that has one: ``pytest -m gpu``."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from random_weights import randomise
from support import CHECKOUT
from virnucpro_pl.data.packed import PackedTokens, pack
from virnucpro_pl.models.encoders.attention import available_backends
from virnucpro_pl.models.encoders.dnabert_s import DnabertS, DnabertSConfig
from virnucpro_pl.models.encoders.esm2 import Esm2, Esm2Config
from virnucpro_pl.models.encoders.numerics import Numerics

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="there is no CUDA device: run pytest -m gpu where there is one"
    ),
]
LENGTHS = (170, 170, 100, 65, 64, 51, 51, 51, 4, 3)
HALVES = [torch.float16, torch.bfloat16]


@pytest.fixture(params=["DNABERT-S", "ESM-2"])
def encoder(request) -> DnabertS | Esm2:
    if request.param == "ESM-2":
        made = Esm2(Esm2Config(num_layers=4, width=320, num_heads=5, ffn_width=1280))
    else:
        made = DnabertS(DnabertSConfig(num_layers=3, width=192, num_heads=3, ffn_width=384, vocabulary=33))
    randomise(made)
    return made.eval().requires_grad_(False)


def tokens_of(lengths, seed: int = 0) -> PackedTokens:
    generator = np.random.default_rng(seed)
    return pack([generator.integers(4, 24, length) for length in lengths])


def on_gpu(packed: PackedTokens) -> PackedTokens:
    return PackedTokens(*(part.cuda() if isinstance(part, torch.Tensor) else part for part in packed))


def test_float32_on_the_gpu_is_float32_on_the_cpu(encoder):
    expected = encoder(tokens_of(LENGTHS))
    encoder.cuda()
    for backend in ["exact", *available_backends("cuda", torch.float32, isinstance(encoder, DnabertS))]:
        encoder.attention = backend
        torch.testing.assert_close(encoder(on_gpu(tokens_of(LENGTHS))).cpu(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", HALVES)
def test_every_backend_in_half_precision_keeps_the_direction(encoder, dtype):
    expected = encoder(tokens_of(LENGTHS))
    encoder.to("cuda", dtype)
    backends = available_backends("cuda", dtype, isinstance(encoder, DnabertS))
    assert "triton" in backends
    assert ("varlen" in backends) == isinstance(encoder, Esm2)
    for backend in backends:
        encoder.attention = backend
        found = encoder(on_gpu(tokens_of(LENGTHS)))
        assert found.dtype == torch.float32
        assert F.cosine_similarity(found.cpu(), expected).min() > (0.9999 if dtype == torch.float16 else 0.999)


def test_ragged_batches_compile_nothing_anew(encoder):
    from virnucpro_pl.models.encoders import kernels

    def compiled() -> int:
        names = [kernels._attend, kernels._add_layer_norm, kernels._gelu, kernels._gated_gelu]
        return sum(len(caches[0]) for kernel in names for caches in kernel.device_caches.values())

    encoder.to("cuda", torch.float16)
    encoder(on_gpu(tokens_of((64, 64, 32))))
    before = compiled()
    generator = np.random.default_rng(1)
    for seed in range(12):
        lengths = sorted(generator.integers(1, 500, generator.integers(1, 9)).tolist(), reverse=True)
        encoder(on_gpu(tokens_of(lengths, seed)))
    assert before
    assert compiled() == before


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_a_step_never_waits_for_the_device(encoder):
    encoder.to("cuda", torch.float16)
    batches = [on_gpu(tokens_of(LENGTHS, seed)) for seed in range(3)]
    encoder(batches[0])
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches:
            encoder(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_same_batch_gives_the_same_bits(encoder):
    encoder.to("cuda", torch.float16)
    Numerics().apply(encoder)
    batch = on_gpu(tokens_of(LENGTHS))
    first = encoder(batch)
    assert all(torch.equal(encoder(batch), first) for _ in range(5))


def test_float8_stays_close(encoder):
    expected = encoder(tokens_of(LENGTHS))
    encoder.to("cuda", torch.float16)
    Numerics(fp8=True).apply(encoder)
    assert F.cosine_similarity(encoder(on_gpu(tokens_of(LENGTHS))).cpu(), expected).min() > 0.99


def test_prediction_on_the_gpu_gives_the_calls_of_the_cpu_and_the_same_bytes_twice(tmp_path):
    import subprocess
    import sys

    def predict(name: str, *arguments: str) -> dict:
        command = [sys.executable, "-m", "virnucpro_pl", "predict", f"output={tmp_path / name}", *arguments]
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads((tmp_path / name / "run.json").read_text())

    def calls(name: str) -> list[str]:
        rows = (tmp_path / name / "prediction_results.txt").read_text().splitlines()
        return ["\t".join(row.split("\t")[:2]) for row in rows]

    predict("cpu", "trainer.accelerator=cpu")
    run = predict("gpu")
    predict("again", f"data.embedding_cache={tmp_path / 'cache'}")
    cached = predict("cached", f"data.embedding_cache={tmp_path / 'cache'}")
    exact = predict("exact", "model.exact=true")

    assert run["engine"]["precision"] == "16-true"
    assert run["engine"]["attention"] == {"DNABERT-S": "triton", "ESM-2": "triton"}
    assert exact["engine"]["precision"] == "32-true"
    assert calls("exact") == calls("cpu")
    assert np.mean([a == b for a, b in zip(calls("gpu"), calls("cpu"), strict=True)]) >= 0.99
    table = "prediction_results.txt"
    for name in ("again", "cached"):
        assert (tmp_path / "gpu" / table).read_bytes() == (tmp_path / name / table).read_bytes()
    assert all(encoder["sequences"] == 0 for encoder in cached["figures"]["encoders"].values())
