"""How the encoders compute: which kernels, and where speed may be bought with exactness."""

from typing import NamedTuple, get_args

import torch

from virnucpro_pl.errors import UserError
from virnucpro_pl.models.encoders.attention import Backend, choose_backend
from virnucpro_pl.models.encoders.dnabert_s import DnabertS
from virnucpro_pl.models.encoders.esm2 import Esm2
from virnucpro_pl.models.encoders.fp8 import FIRST_CAPABILITY, can_multiply_fp8, use_fp8


class Numerics(NamedTuple):
    """The choices a user has besides the precision."""

    attention: Backend = "auto"
    """Which attention kernels"""
    exact: bool = False
    """Plain torch operations throughout, slow, as a reference; no fused kernels"""
    fp8: bool = False
    """ESM-2's linear layers in float8"""
    fp16_accumulation: bool = False
    """Matrix products in float16 sum in float16 too; twice as fast on GeForce cards, without effect on others"""

    def check(self) -> None:
        """Raise UserError for choices that exclude each other or do not exist."""
        names = [name for name in get_args(Backend) if name != "exact"]
        if self.attention not in names:
            raise UserError(f"model.attention={self.attention}: choose one of {', '.join(names)}")
        if self.exact and (self.fp8 or self.fp16_accumulation or self.attention != "auto"):
            raise UserError("model.exact=true is the reference; leave out model.attention, fp8 and fp16_accumulation")

    def apply(self, encoder: DnabertS | Esm2) -> None:
        """Make an encoder, on its device and in its precision, compute so.

        Raises:
            UserError: the device cannot do what is asked.
        """
        weight = next(encoder.parameters())
        device, dtype = weight.device, weight.dtype
        with_alibi = isinstance(encoder, DnabertS)
        encoder.attention = "exact" if self.exact else self.attention
        used = choose_backend(encoder.attention, device.type, dtype, with_alibi, num_runs=1)
        if encoder.attention not in ("auto", used) and not with_alibi:  # DNABERT-S takes what knows ALiBi
            raise UserError(
                f"model.attention={self.attention} cannot run on {device.type} in {_name(dtype)}, or is not installed;"
                " model.attention=auto takes the best that can"
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
        # Products split along their inner dimension add up in float32, so that they are the same on every call.
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False


def used_attention(encoder: DnabertS | Esm2) -> str:
    """Name the attention kernels an encoder uses where it is; ``auto`` may also depend on the batch."""
    weight = next(encoder.parameters())
    few, many = (
        choose_backend(encoder.attention, weight.device.type, weight.dtype, isinstance(encoder, DnabertS), num_runs)
        for num_runs in (1, 1000)
    )
    return few if few == many else f"{few} or {many}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
