"""The Triton kernels, run by Triton's interpreter on the CPU, against plain torch."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from random_weights import randomise
from virnucpro_pl.data.packed import pack
from virnucpro_pl.models.encoders import attention, pointwise
from virnucpro_pl.models.encoders.attention import Rotation, alibi_slopes, attend
from virnucpro_pl.models.encoders.dnabert_s import DnabertS, DnabertSConfig
from virnucpro_pl.models.encoders.esm2 import Esm2, Esm2Config
from virnucpro_pl.models.encoders.fp8 import Fp8Linear, use_fp8

kernels = pytest.importorskip("virnucpro_pl.models.encoders.kernels", reason="Triton is not here: run on Linux")

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("there is a CUDA device, which runs the kernels themselves: pytest -m gpu", allow_module_level=True)

COMPILE = Path(__file__).with_name("compile_kernels.py")
HALVES = (torch.float16, torch.bfloat16)


def packed_of(lengths: list[int], vocabulary: int = 1) -> attention.PackedTokens:
    generator = np.random.default_rng(sum(lengths))
    return pack([generator.integers(0, vocabulary, length) for length in lengths])


def random_angles(num_positions: int, width: int) -> Rotation:
    angles = torch.rand(num_positions, width // 2, generator=torch.Generator().manual_seed(1)) * 6
    return Rotation(angles.cos(), angles.sin())


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(1, 140), min_size=1, max_size=4),
    st.sampled_from([(1, 64), (3, 20), (2, 128)]),
    st.booleans(),
    st.booleans(),
)
def test_attention_equals_dense_attention_over_runs(lengths, shape, rotary, alibi):
    heads, width = shape
    packed = packed_of(lengths)
    qkv = torch.randn(sum(lengths), 3, heads, width, generator=torch.Generator().manual_seed(len(lengths)))
    rotation = random_angles(140, width) if rotary else None
    slopes = alibi_slopes(heads) if alibi else None

    found = kernels.attend(
        qkv, packed.cu_seqlens, packed.max_seqlen, rotation, None if slopes is None else torch.tensor(slopes)
    )

    expected = attend(qkv, packed, rotation=rotation, alibi_slopes=slopes, backend="exact")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_attention_in_half_precision_differs_by_rounding_only():  # the interpreter has no bfloat16 products
    packed = packed_of([70, 70, 5])
    qkv = torch.randn(145, 3, 2, 64, generator=torch.Generator().manual_seed(0)).half()
    rotation = random_angles(70, 64)

    found = kernels.attend(qkv, packed.cu_seqlens, packed.max_seqlen, rotation)

    expected = attend(qkv.float(), packed, rotation=rotation, backend="exact")
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), expected, atol=4 * torch.finfo(torch.float16).eps, rtol=0)


def test_a_sequence_does_not_see_its_neighbours():
    packed = packed_of([40, 66, 3])
    qkv = torch.randn(109, 3, 2, 32, generator=torch.Generator().manual_seed(0))
    changed = qkv.clone()
    changed[40:106] += 1

    before, after = (kernels.attend(x, packed.cu_seqlens, packed.max_seqlen) for x in (qkv, changed))

    assert torch.equal(before[:40], after[:40])
    assert torch.equal(before[106:], after[106:])
    assert not torch.equal(before[40:106], after[40:106])


def test_no_tokens_give_no_rows():
    packed = packed_of([])
    assert kernels.attend(torch.empty(0, 3, 2, 32), packed.cu_seqlens, packed.max_seqlen).shape == (0, 64)


@pytest.mark.parametrize("width", [24, 1280])
def test_layer_norm_of_a_sum_is_torchs(width):
    generator = torch.Generator().manual_seed(0)
    x, delta = (torch.randn(9, width, generator=generator) * 3 + 1 for _ in range(2))
    norm = torch.nn.LayerNorm(width)
    randomise(norm)
    total = x + delta

    found = kernels.add_layer_norm(x, delta, norm.weight, norm.bias, norm.eps)

    assert torch.equal(x, total)
    torch.testing.assert_close(found, norm(total), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(kernels.add_layer_norm(x, None, norm.weight, norm.bias, norm.eps), found)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_gelu_is_torchs_to_the_precision_of_the_dtype(dtype):
    x = torch.cat([torch.linspace(-12, 12, 5000), torch.tensor([0.0, -0.0, 1e-4, -1e-4, 60.0, -60.0])]).to(dtype)
    expected = F.gelu(x.double())

    found = kernels.gelu_(x.clone()).double()

    atol, rtol = (1e-6, 1e-6) if dtype == torch.float32 else (3e-7, torch.finfo(dtype).eps)
    torch.testing.assert_close(found, expected, atol=atol, rtol=rtol)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_gated_gelu_is_torchs_to_the_precision_of_the_dtype(dtype):
    gates = (torch.randn(7, 2 * 40, generator=torch.Generator().manual_seed(0)) * 3).to(dtype)
    gate, value = gates.double().chunk(2, dim=1)

    found = kernels.gated_gelu(gates).double()

    rtol = 1e-5 if dtype == torch.float32 else torch.finfo(dtype).eps
    torch.testing.assert_close(found, F.gelu(gate) * value, atol=1e-6, rtol=rtol)


def test_quantised_rows_are_those_of_plain_torch_and_near_the_original():
    x = torch.randn(5, 100, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1e-3], [1], [50], [1e4], [0]])

    values, scales = kernels.quantise(x)

    plain_values, plain_scales = pointwise.quantise(x)
    torch.testing.assert_close(scales, plain_scales)
    # The interpreter loses the carry where rounding reaches the next power of two.
    carried = plain_values.float().abs().log2() % 1 == 0
    assert torch.equal(values.float()[~carried], plain_values.float()[~carried])
    assert carried.float().mean() < 0.2
    error = (plain_values.float() * plain_scales - x).abs()
    assert (error <= x.abs() * 2**-4 + plain_scales * 2**-10).all()


@pytest.fixture
def esm2() -> Esm2:
    encoder = Esm2(Esm2Config(num_layers=4, width=64, num_heads=2, ffn_width=128)).eval().requires_grad_(False)
    randomise(encoder)
    return encoder


@pytest.fixture
def dnabert_s() -> DnabertS:
    encoder = DnabertS(DnabertSConfig(num_layers=2, width=48, num_heads=3, ffn_width=64, vocabulary=50)).eval()
    randomise(encoder)
    return encoder.requires_grad_(False)


@pytest.mark.parametrize("name", ["esm2", "dnabert_s"])
def test_encoders_give_the_same_embeddings_with_the_kernels(request, monkeypatch, name):
    encoder, packed = request.getfixturevalue(name), packed_of([70, 70, 9, 3], vocabulary=30)
    expected = encoder(packed)
    for module in (attention, pointwise):
        monkeypatch.setattr(module, "has_kernels", lambda device_type: True)

    torch.testing.assert_close(encoder(packed), expected, atol=2e-5, rtol=1e-5)


def test_float8_keeps_the_first_and_last_layer_and_stays_close(esm2):
    packed = packed_of([30, 30, 12], vocabulary=30)
    expected = esm2(packed)

    use_fp8(esm2)

    replaced = [isinstance(layer.fc1, Fp8Linear) for layer in esm2.layers]
    assert replaced == [False, True, True, False]
    found = esm2(packed)
    assert not torch.equal(found, expected)
    assert F.cosine_similarity(found, expected).min() > 0.99


@pytest.mark.parametrize(("capability", "dtype", "count"), [(75, "fp16", 5), (80, "bf16", 5), (90, "fp16", 6)])
def test_every_kernel_compiles_for_the_gpus_in_use(tmp_path, capability, dtype, count):
    """Turing, Ampere and Hopper; the compiler needs no GPU, and checks more than the interpreter does."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, COMPILE, str(capability), dtype],
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == str(count), done.stderr
