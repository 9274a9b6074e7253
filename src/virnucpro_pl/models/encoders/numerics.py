"""Numerics of the encoders: attention kernels and reduced precision."""

from typing import NamedTuple, get_args

import torch

from virnucpro_pl.errors import UserError
from virnucpro_pl.models.encoders.attention import Backend, choose_backend
from virnucpro_pl.models.encoders.dnabert_s import DnabertS
from virnucpro_pl.models.encoders.esm2 import Esm2
from virnucpro_pl.models.encoders.fp8 import FIRST_CAPABILITY, can_multiply_fp8, use_fp8


class Numerics(NamedTuple):
    """Settings of the numerics, beside the precision."""

    attention: Backend = "auto"
    """attention kernels"""
    exact: bool = False
    """plain torch operations without fused kernels; slow, the reference"""
    fp8: bool = False
    """linear layers of ESM-2 in float8"""
    fp16_accumulation: bool = False
    """float16 sums in matrix products; twice as fast on GeForce GPUs, without effect on others"""

    def check(self) -> None:
        """Raise UserError if settings are unknown or exclude each other."""
        names = [name for name in get_args(Backend) if name != "exact"]
        if self.attention not in names:
            raise UserError(f"model.attention={self.attention}: choose one of {', '.join(names)}")
        if self.exact and (self.fp8 or self.fp16_accumulation or self.attention != "auto"):
            raise UserError("model.exact=true is the reference; leave out model.attention, fp8 and fp16_accumulation")

    def apply(self, encoder: DnabertS | Esm2) -> None:
        """Apply the settings to an encoder on its device and in its precision.

        Raises:
            UserError: the device does not support a setting.
        """
        weight = next(encoder.parameters())
        device, dtype = weight.device, weight.dtype
        with_alibi = isinstance(encoder, DnabertS)
        encoder.attention = "exact" if self.exact else self.attention
        used = choose_backend(encoder.attention, device.type, dtype, with_alibi, num_runs=1)
        if encoder.attention not in ("auto", used) and not with_alibi:  # DNABERT-S uses kernels with ALiBi
            raise UserError(
                f"model.attention={self.attention} cannot run on {device.type} in {_name(dtype)}, or is not installed;"
                " model.attention=auto uses the fastest that can run"
            )
        if self.fp8 and isinstance(encoder, Esm2):
            if not can_multiply_fp8(device):
                needed = ".".join(map(str, FIRST_CAPABILITY))
                raise UserError(f"model.fp8=true needs a GPU of CUDA capability {needed} (Ada, Hopper) or newer")
            if len(encoder.layers) < 3:
                raise UserError(
                    "model.fp8=true leaves the first and the last layer as they are; this ESM-2 has no others"
                )
            use_fp8(encoder)
        if self.fp16_accumulation and (device.type, dtype) != ("cuda", torch.float16):
            raise UserError("model.fp16_accumulation=true needs a CUDA device and trainer.precision=16-true")
        torch.backends.cuda.matmul.allow_fp16_accumulation = self.fp16_accumulation
        # Partial products are added in float32, so that results are the same on every call.
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False


def used_attention(encoder: DnabertS | Esm2) -> str:
    """Return the attention kernels of an encoder on its device; ``auto`` may also depend on the batch."""
    weight = next(encoder.parameters())
    few, many = (
        choose_backend(encoder.attention, weight.device.type, weight.dtype, isinstance(encoder, DnabertS), num_runs)
        for num_runs in (1, 1000)
    )
    return few if few == many else f"{few} or {many}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
