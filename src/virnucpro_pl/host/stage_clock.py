"""Clock of the stages, on the host and, without synchronisation, on CUDA devices."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

CHUNKING = "Chunking"
TRANSLATION = "Translation"
PLANNING = "Storing and planning"
DNABERT_S = "DNABERT-S"
ESM2 = "ESM-2"
HEAD = "Head"
CONSENSUS = "Consensus"
WRITING = "Writing"

STAGES = (CHUNKING, TRANSLATION, PLANNING, DNABERT_S, ESM2, HEAD, CONSENSUS, WRITING)
"""Stages in the order of the published pipeline, without its splitting and merging of files"""


class StageClock:
    """Clock that accumulates the seconds of each stage.

    On a CUDA device a stage is measured between two events in its stream; the events are read in ``seconds``.
    """

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(STAGES, 0.0)
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def __call__(self, stage: str, device: "torch.device | None" = None) -> Iterator[None]:
        """Add the time of the block to ``stage``; ``device`` runs its work, None is the host."""
        if device is not None and device.type == "cuda":
            import torch  # slow to import

            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            begin.record()
            yield
            end.record()
            self._events.append((stage, begin, end))
            if len(self._events) > 1000:
                self._read_events()
        else:
            start = time.perf_counter()
            try:
                yield
            finally:
                self._seconds[stage] += time.perf_counter() - start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Ignore the stages of the block, such as those of a trial."""
        before = self.seconds()
        yield
        self._read_events()
        self._seconds = before

    def _read_events(self) -> None:
        for stage, begin, end in self._events:
            end.synchronize()
            self._seconds[stage] += begin.elapsed_time(end) / 1000
        self._events.clear()

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each stage; waits for the device."""
        self._read_events()
        return dict(self._seconds)
