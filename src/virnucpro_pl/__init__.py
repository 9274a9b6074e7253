"""Which of these reads are viral? VirNucPro's method, rebuilt on PyTorch Lightning and Hydra."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from virnucpro_pl.api import Predictor, predict

__version__ = "0.1.0"
__all__ = ["Predictor", "__version__", "predict"]


def __getattr__(name: str) -> Any:
    """Import the Python interface when it is used: it takes seconds, and ``--help`` needs none of it."""
    if name in ("Predictor", "predict"):
        from virnucpro_pl import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
