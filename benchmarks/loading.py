"""How fast ESM-2 loads from each format, against the disk's own read rate, and what memory of the host that takes.

Random weights of the published size are written as fair-esm writes its ``.pt``, and converted to safetensors. Each is
read in a process of its own, after its pages were dropped from the system's cache; the read rate is that of the same
files, read from front to back before, likewise. Memory is what belongs to the process alone, and what it maps of files,
which all processes share. At last two processes hold the conversion at a time.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

SIZES = {"3b": (36, 2560, 40), "650m": (33, 1280, 20), "tiny": (2, 64, 4)}
BLOCK = 1 << 24


def drop_from_cache(path: Path) -> None:
    """Ask the system to forget a file's pages, once they are on the disk."""
    for file in files_of(path):
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def files_of(path: Path) -> list[Path]:
    return [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]


def read_rate(path: Path) -> float:
    """Bytes per second of plain reading."""
    drop_from_cache(path)
    began, count = time.perf_counter(), 0
    for file in files_of(path):
        with file.open("rb", buffering=0) as stream:
            while block := stream.read(BLOCK):
                count += len(block)
    return count / (time.perf_counter() - began)


def memory() -> dict[str, int]:
    """Bytes of this process: its own, and mapped from files."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(fields[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile")}


class Peak(threading.Thread):
    """Looks at the memory every few milliseconds."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.highest = memory()
        self._done = threading.Event()

    def run(self) -> None:
        """Look until told to stop."""
        while not self._done.wait(0.005):
            now = memory()
            self.highest = {name: max(self.highest[name], now[name]) for name in now}

    def stop(self) -> dict[str, int]:
        """Return the most there was."""
        self._done.set()
        self.join()
        return self.highest


def load(path: str, dtype: str, device: str, wait: bool) -> None:
    """In a process of its own: load, and tell what that took."""
    import lightning  # noqa: F401 - as the program does; what it imports of torch is not loading

    from virnucpro_pl.models.weights.sources import Esm2Source

    source = Esm2Source(path)
    if device != "cpu":
        torch.zeros(1, device=device)  # starting CUDA is not loading
    before, peak = memory(), Peak()
    torch.set_default_dtype(getattr(torch, dtype))
    peak.start()
    began = time.perf_counter()
    with torch.device(device):
        encoder = source.load()
    if device != "cpu":
        torch.cuda.synchronize()
    else:  # pages that are mapped only come when they are touched
        for tensor in encoder.state_dict().values():
            tensor.flatten()[:: 4096 // tensor.element_size()].sum()
    seconds = time.perf_counter() - began
    highest = peak.stop()
    told = {"seconds": seconds, **{name: highest[name] - before[name] for name in highest}}
    print(json.dumps(told), flush=True)
    if wait:
        sys.stdin.readline()


def write_checkpoints(folder: Path, size: str) -> dict[str, Path]:
    """Random weights as fair-esm and as Hugging Face write them."""
    layers, width, heads = SIZES[size]
    torch.manual_seed(0)
    plain = {"embed_tokens.weight": (33, width)}
    for layer in range(layers):
        start = f"layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            plain |= {f"{start}.self_attn.{part}.weight": (width, width), f"{start}.self_attn.{part}.bias": (width,)}
        for norm in ("self_attn_layer_norm", "final_layer_norm"):
            plain |= {f"{start}.{norm}.weight": (width,), f"{start}.{norm}.bias": (width,)}
        plain |= {f"{start}.fc1.weight": (4 * width, width), f"{start}.fc1.bias": (4 * width,)}
        plain |= {f"{start}.fc2.weight": (width, 4 * width), f"{start}.fc2.bias": (width,)}
    plain |= {"emb_layer_norm_after.weight": (width,), "emb_layer_norm_after.bias": (width,)}
    tensors = {name: torch.rand(shape) * 0.02 for name, shape in plain.items()}
    namespace = argparse.Namespace(
        encoder_layers=layers, encoder_embed_dim=width, encoder_attention_heads=heads, token_dropout=True
    )
    fair_esm = folder / "esm2_random.pt"
    named = {f"encoder.sentence_encoder.{name}": tensor for name, tensor in tensors.items()}
    torch.save({"cfg": {"model": namespace}, "model": named}, fair_esm)
    return {"fair-esm .pt, float32": fair_esm}


def measure(path: Path, weights: Path, dtype: str, device: str) -> dict[str, float]:
    """Load in a fresh process whose pages are not cached."""
    rate = read_rate(path)
    drop_from_cache(path)
    command = [sys.executable, __file__, "--load", str(weights), "--dtype", dtype, "--device", device]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    size = sum(file.stat().st_size for file in files_of(path))
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {**told, "size": size, "share of read rate": size / told["seconds"] / rate, "rate": rate}


def shared_memory(weights: Path, dtype: str) -> tuple[float, float]:
    """Proportional set size of one process that holds the conversion on the CPU, and of two together."""
    command = [sys.executable, __file__, "--load", str(weights), "--dtype", dtype, "--device", "cpu", "--wait"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    sums, processes = [], []
    for _ in range(2):
        processes.append(subprocess.Popen(command, **pipes))  # type: ignore[call-overload]
        processes[-1].stdout.readline()
        sums.append(sum(_pss(process.pid) for process in processes))
    for process in processes:
        process.communicate("\n")
    return sums[0], sums[1]


def _pss(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * float(next(line for line in lines if line.startswith("Pss:")).split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="650m")
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--folder", help="on the disk that is measured")
    parser.add_argument("--load")
    parser.add_argument("--wait", action="store_true")
    arguments = parser.parse_args()
    if arguments.load:
        return load(arguments.load, arguments.dtype, arguments.device, arguments.wait)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        folder = Path(temporary)
        os.environ["VIRNUCPRO_CACHE"] = str(folder / "none")
        found = {name: measure(path, path, arguments.dtype, arguments.device)
                 for name, path in write_checkpoints(folder, arguments.size).items()}  # fmt: skip
        os.environ["VIRNUCPRO_CACHE"] = str(folder / "cache")
        from virnucpro_pl.models.weights.sources import Esm2Source

        weights = folder / "esm2_random.pt"
        began = time.perf_counter()
        converted = Esm2Source(str(weights)).convert(getattr(torch, arguments.dtype))
        conversion = time.perf_counter() - began
        found["converted"] = measure(converted, weights, arguments.dtype, arguments.device)
        size = found["converted"]["size"]
        print(f"ESM-2 {arguments.size}, {arguments.dtype} on {arguments.device}: {size / 1e9:.2f} GB")
        for name, told in found.items():
            rate = f"{told['share of read rate']:.2f} of the read rate ({told['rate'] / 1e9:.2f} GB/s)"
            own, mapped = (told[kind] / size for kind in ("RssAnon", "RssFile"))
            print(f"  {name:<22} {told['size'] / 1e9:6.2f} GB in {told['seconds']:6.2f} s, {rate}")
            print(f"  {'':<22} memory of its own {own:.2f} times the model, mapped {mapped:.2f} times")
        print(f"  converting took {conversion:.1f} s")
        one, two = shared_memory(weights, arguments.dtype)
        print(f"  on the CPU one process holds {one / size:.2f} times the model, two together {two / size:.2f} times")
    return None


if __name__ == "__main__":
    main()
