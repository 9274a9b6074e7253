"""Taking time on devices that work behind the host's back."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_seconds(steps: Sequence[Callable[[], Any]], device: torch.device, repeats: int) -> float:
    """Median seconds of doing all steps, after the first and the last were done once to warm up."""
    for warming_up in dict.fromkeys((0, len(steps) - 1)):
        steps[warming_up]()
    return statistics.median(_seconds(steps, device) for _ in range(repeats))


def sustained_seconds(step: Callable[[], Any], device: torch.device, at_least: float) -> float:
    """Seconds of one step among as many in a row as take ``at_least`` seconds; short bursts run at higher clocks."""
    step()
    once = _seconds([step], device)
    if once >= at_least:
        return once
    count = math.ceil(at_least / once)
    return _seconds([step] * count, device) / count


def _seconds(steps: Sequence[Callable[[], Any]], device: torch.device) -> float:
    synchronise(device)
    begin = time.perf_counter()
    for step in steps:
        step()
    synchronise(device)
    return time.perf_counter() - begin
