"""Weights fetched by name: a small server in place of the hub, and a cold cache."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch

from models.weights.hub_server import Hub
from support import PATIENCE
from virnucpro_pl.data.packed import pack
from virnucpro_pl.files.output_files import ORF_TABLE, RESULT_FILES
from virnucpro_pl.models.weights.sources import DnabertSSource

NAME = "owner/name"
REVISION = "0123456789abcdef0123456789abcdef01234567"
FILES = ("config.json", "pytorch_model.bin", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
NOT_WANTED = ("model.py", "secret.bin", "README.md")
SEQUENCES = (b"ATGGCTGCAGCTGCTGGTGCTGCAGC", b"ACGT", b"TTTTGACCA")

# Imports first, so that the test can say when to begin.
LOAD = """
import logging, sys
import numpy as np, torch, transformers
from virnucpro_pl.data.packed import pack
from virnucpro_pl.models.weights.sources import DnabertSSource
output, name, revision, files, sequences = sys.argv[1:]
logging.basicConfig(level=logging.INFO)
print("ready", flush=True)
sys.stdin.readline()
source = DnabertSSource(name, revision, tuple(files.split()), "model.dna_encoder")
with torch.inference_mode():
    np.save(output, source.load()(pack(source.tokenizer()(sequences.encode().split()))).numpy())
"""


@pytest.fixture
def hub(mini: Path) -> Iterator[Hub]:
    """A hub with one repository, which has more files than are wanted."""
    folder = mini / "models" / "DNABERT-S"
    contents = {name: (folder / name).read_bytes() for name in FILES}
    server = Hub({NAME: (REVISION, {**contents, **dict.fromkeys(NOT_WANTED, b"not to be fetched")})})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.stop()
    thread.join()


@pytest.fixture
def client(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make this process use the server, with an empty cache; returns where a snapshot is to be."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("VIRNUCPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    huggingface_hub.close_session()  # it keeps the proxies it was made with
    yield snapshot_in(tmp_path / "hf")
    huggingface_hub.close_session()


def snapshot_in(home: Path) -> Path:
    return home / "hub" / f"models--{NAME.replace('/', '--')}" / "snapshots" / REVISION


def environment(hub: Hub, home: Path, **more: str) -> dict[str, str]:
    """Variables for a process whose hub is the server and whose cache is in a folder of ours."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "HUGGINGFACE_", "TRANSFORMERS_")) and not name.lower().endswith("_proxy")
    }
    ours = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "VIRNUCPRO_CACHE": str(home / "ours")}
    return {**kept, **ours, "OMP_NUM_THREADS": "1", **more}


class Loader:
    """A process that loads the model and embeds the sequences once told to."""

    def __init__(self, output: Path, env: dict[str, str]):
        self.output = output
        arguments = [output, NAME, REVISION, " ".join(FILES), b" ".join(SEQUENCES).decode()]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self.process = subprocess.Popen([sys.executable, "-c", LOAD, *map(str, arguments)], env=env, text=True, **pipes)

    def wait_until_ready(self) -> None:
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "ready\n":
            pytest.fail(self.process.communicate(timeout=PATIENCE)[1])

    def begin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self) -> str:
        """Wait for the end, which must be a good one, and return the log."""
        _, log = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, log
        return log

    def embeddings(self) -> np.ndarray:
        return np.load(self.output)


@pytest.fixture
def loader(hub: Hub, tmp_path: Path) -> Iterator[Callable[..., Loader]]:
    """Start a process that will load the model; several share one cache."""
    started: list[Loader] = []

    def start(**more: str) -> Loader:
        env = environment(hub, tmp_path / "hf", **more)
        started.append(Loader(tmp_path / f"embeddings{len(started)}.npy", env))
        return started[-1]

    yield start
    for loader in started:
        loader.process.kill()
        loader.process.communicate()


@pytest.fixture(scope="module")
def from_disk(mini: Path) -> np.ndarray:
    """Embeddings by the model loaded from the folder the server serves."""
    source = DnabertSSource(str(mini / "models" / "DNABERT-S"))
    with torch.inference_mode():
        embeddings: np.ndarray = source.load()(pack(source.tokenizer()(list(SEQUENCES)))).numpy()
    assert embeddings.shape == (len(SEQUENCES), 48)
    return embeddings


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)


# Two processes, one cold cache


def test_two_processes_that_fetch_at_the_same_time_both_get_the_whole_model(hub, loader, from_disk):
    both = threading.Barrier(2)

    def before(method: str, path: str) -> None:
        if "/tree/" in path:
            both.wait(PATIENCE)  # each has found the cache empty before either fetches anything
        elif method == "GET":
            time.sleep(0.1)

    hub.before = before
    processes = [loader(), loader()]
    for process in processes:
        process.wait_until_ready()
    for process in processes:
        process.begin()

    for process in processes:
        process.finish()
        np.testing.assert_array_equal(process.embeddings(), from_disk)
    assert not both.broken
    assert set(hub.fetched()) == set(FILES)


def test_a_process_that_finds_half_a_model_of_another_waits_for_the_rest(hub, loader, tmp_path, from_disk):
    asked_by_both, asked = threading.Event(), []

    def before(method: str, path: str) -> None:
        if path.endswith("/pytorch_model.bin"):
            if method == "GET":
                asked_by_both.wait(PATIENCE)
            else:
                asked.append(path)
                if len(asked) == 4:  # each looks how large it is, and then fetches it
                    asked_by_both.set()

    hub.before = before
    first, second = loader(), loader()
    first.wait_until_ready()
    second.wait_until_ready()
    first.begin()
    wait_for(lambda: len(list(snapshot_in(tmp_path / "hf").glob("*"))) == len(FILES) - 1, "all but the weights")
    second.begin()

    for process in (second, first):
        process.finish()
        np.testing.assert_array_equal(process.embeddings(), from_disk)
    assert asked_by_both.is_set()
    assert hub.fetched() == sorted(FILES)


# A warm cache


def test_once_fetched_the_model_loads_without_a_request(hub, client, loader, from_disk):
    DnabertSSource(NAME, REVISION, FILES).locate()
    assert hub.fetched() == sorted(FILES)
    hub.requests.clear()
    with_hub, offline, without_hub = loader(), loader(HF_HUB_OFFLINE="1"), loader()

    for process in (with_hub, offline, without_hub):
        process.wait_until_ready()
        if process is without_hub:
            hub.stop()
        process.begin()
        process.finish()
        np.testing.assert_array_equal(process.embeddings(), from_disk)
    assert hub.requests == []


def test_once_fetched_nothing_is_said_to_be_fetched(hub, client, caplog):
    caplog.set_level(logging.INFO, "virnucpro_pl")
    DnabertSSource(NAME, REVISION, FILES).locate()
    assert caplog.text.count(f"Fetching {NAME} (revision {REVISION}) from the hub") == 1

    DnabertSSource(NAME, REVISION, FILES).locate()

    assert caplog.text.count("Fetching") == 1


# What is asked for


def test_only_the_pinned_revision_and_the_listed_files_are_asked_for(hub, client):
    found = DnabertSSource(NAME, REVISION, FILES).locate()

    assert found == client
    assert {path.name for path in found.iterdir()} == set(FILES)
    wanted = {f"/api/models/{NAME}/tree/{REVISION}", *(f"/{NAME}/resolve/{REVISION}/{name}" for name in FILES)}
    assert {path for _, path in hub.requests} == wanted
    assert hub.fetched() == sorted(FILES)


# What the hub does not have


@pytest.mark.parametrize(("name", "revision"), [(NAME, 40 * "f"), ("owner/other", REVISION)])
def test_what_the_hub_does_not_have_is_told_at_once(hub, client, refused, name, revision):
    source = DnabertSSource(name, revision, FILES, "model.dna_encoder")

    refused(source.locate, f"model.dna_encoder.weights={name}", revision, *FILES)

    assert len(hub.requests) == 1, "asking again would not help"


def test_a_page_in_place_of_the_hub_s_answer_is_told(hub, client, refused):
    hub.page = b"<html>Please log in</html>"

    refused(DnabertSSource(NAME, REVISION, FILES, "model.dna_encoder").locate, f"model.dna_encoder.weights={NAME}")


# From the command line


def test_two_devices_with_a_cold_cache_write_what_the_folder_on_disk_gives(
    hub, mini, mini_overrides, cli, tmp_path: Path
):
    common = [f"input={mini / 'inputs' / 'mini.fa'}", "data.token_budget=256", "trainer.accelerator=cpu"]
    by_name = [
        f"model.dna_encoder.weights={NAME}",
        f"model.dna_encoder.revision={REVISION}",
        f"model.dna_encoder.files=[{','.join(FILES)}]",
        "trainer.devices=2",
        "trainer.strategy=ddp",
    ]
    overrides = [value for value in mini_overrides if not value.startswith("model.dna_encoder.weights=")] + by_name
    process = subprocess.Popen(
        [sys.executable, "-m", "virnucpro_pl", "predict", f"output={tmp_path / 'hub'}", *common, *overrides],
        env=environment(hub, tmp_path / "hf"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    from_folder = cli("predict", f"output={tmp_path / 'disk'}", *common, *mini_overrides)
    assert from_folder.code == 0, from_folder.err
    _, log = process.communicate(timeout=2 * PATIENCE)
    assert process.returncode == 0, log

    assert (tmp_path / "disk" / ORF_TABLE).read_text().count("\n") > 1
    for name in RESULT_FILES:
        assert (tmp_path / "hub" / name).read_bytes() == (tmp_path / "disk" / name).read_bytes(), name
    assert json.loads((tmp_path / "hub" / "run.json").read_text())["engine"]["world_size"] == 2
    assert hub.fetched() == sorted(FILES)
