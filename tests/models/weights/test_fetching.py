"""A first prediction with a published model on a machine that has none of it, and all that can go wrong with that.

A small server holds small models under the real names, revisions and layouts.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest

from models.weights.hub_server import REFUSED, Hub, git_blob
from support import MINI, Result
from virnucpro_pl.files.output_files import RESULT_FILES
from virnucpro_pl.models.weights.cache import cache_folder

Cli = Callable[..., Result]
DNA, PROTEIN, HEADS = "zhihan1996/DNABERT-S", "facebook/esm2_t36_3B_UR50D", "Li-Jing-1997/VirNucPro"
REVISIONS = {
    DNA: "00e47f96cdea35e4b6f5df89e5419cbe47d490c6",
    PROTEIN: "476b639933c8baad5ad09a60ac1a87f987b656fc",
    HEADS: "0b7e6f1f1c5972ce30aa1ced5977890406d3efe2",
}
READS = MINI / "inputs" / "mini.fa"
MODEL = "model=virnucpro_300"


def published(folder: Path) -> dict[str, tuple[str, dict[str, bytes]]]:
    """Small models as the real repositories hold theirs: pickles, ESM-2 in two shards."""
    import torch
    from transformers import EsmConfig, EsmModel

    models = MINI / "models"
    torch.manual_seed(3)
    esm = EsmModel(
        EsmConfig(
            vocab_size=33, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
            position_embedding_type="rotary", token_dropout=True, pad_token_id=1, mask_token_id=32,
            emb_layer_norm_before=False, max_position_embeddings=1026,
        )
    )  # fmt: skip
    state = {f"esm.{name}": tensor for name, tensor in esm.state_dict().items()}
    halves = [dict([*state.items()][::2]), dict([*state.items()][1::2])]
    files: dict[str, bytes] = {}
    names = [f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)]
    for name, half in zip(names, halves, strict=True):
        torch.save(half, folder / name)
        files[name] = (folder / name).read_bytes()
    weight_map = {key: name for name, half in zip(names, halves, strict=True) for key in half}
    files["pytorch_model.bin.index.json"] = json.dumps({"metadata": {}, "weight_map": weight_map}).encode()
    files["config.json"] = json.dumps(esm.config.to_dict()).encode()
    dna = {path.name: path.read_bytes() for path in (models / "DNABERT-S").iterdir()}
    head = (models / "mlp" / "300_model.pth").read_bytes()
    contents = {DNA: dna, PROTEIN: files, HEADS: {"300_model.pth": head}}
    return {name: (REVISIONS[name], of) for name, of in contents.items()}


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, dict[str, bytes]]]:
    return published(tmp_path_factory.mktemp("published"))


@pytest.fixture
def hub(repositories: dict[str, tuple[str, dict[str, bytes]]]) -> Iterator[Hub]:
    server = Hub({name: (revision, dict(files)) for name, (revision, files) in repositories.items()})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.stop()
    thread.join()


@pytest.fixture(autouse=True)
def fresh_machine(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Empty caches, and a hub that is our server; ``HF_ENDPOINT`` as a user sets it."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr("virnucpro_pl.models.weights.file_fetch._RETRIES", 1)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("VIRNUCPRO_CACHE", str(tmp_path / "ours"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    refuse = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: _only_here(refuse, self, address))
    huggingface_hub.close_session()
    yield
    huggingface_hub.close_session()


def _only_here(connect: Callable, sock: socket.socket, address: object) -> object:
    if sock.family == socket.AF_INET and address[0] != "127.0.0.1":
        raise OSError("the test allows no network")
    return connect(sock, address)


def predict(cli: Cli, folder: Path, *more: str) -> Result:
    return cli("predict", f"input={READS}", f"output={folder}", MODEL, "trainer.accelerator=cpu", *more)


def results(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in RESULT_FILES}


def test_the_first_prediction_fetches_checks_and_converts_and_the_next_needs_no_network(
    cli: Cli, hub: Hub, tmp_path: Path
) -> None:
    first = predict(cli, tmp_path / "first")
    assert first.code == 0, first.err
    assert f"Fetching {DNA} (revision {REVISIONS[DNA]}) from the hub: " in first.err
    assert "300_model.pth: " in first.err
    assert first.err.count("Converting") == 2
    lock = json.loads((cache_folder() / "weights.lock").read_text())
    assert lock.keys() == {f"{name}@{revision}" for name, revision in REVISIONS.items()}
    asked = len(hub.requests)
    hub.stop()
    second = predict(cli, tmp_path / "second")
    assert second.code == 0, second.err
    assert len(hub.requests) == asked
    assert "Fetching" not in second.err
    assert "Converting" not in second.err
    assert results(tmp_path / "first") == results(tmp_path / "second")


def test_a_user_sets_nothing_but_the_hubs_address(hub: Hub, tmp_path: Path) -> None:
    """In a process of its own, as from a shell; the second has no hub to ask."""
    hub.repositories[HEADS][1]["500_model.pth"] = hub.repositories[HEADS][1].pop("300_model.pth")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "VIRNUCPRO_"))}
    environment = {**kept, "HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.url, "NO_PROXY": "127.0.0.1"}
    for name in ("first", "second"):
        command = [sys.executable, "-m", "virnucpro_pl", "predict", f"input={READS}", "model=virnucpro_500"]
        done = subprocess.run([*command, f"output={tmp_path / name}"], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert ("Fetching" in done.stderr) == ("Converting" in done.stderr) == (name == "first")
        if name == "first":
            hub.stop()
    assert results(tmp_path / "first") == results(tmp_path / "second")
    assert (tmp_path / "home" / ".cache" / "virnucpro_pl" / "weights.lock").exists()


def test_what_was_fetched_and_converted_scores_as_the_files_do(cli: Cli, hub: Hub, tmp_path: Path) -> None:
    for name, (_, files) in hub.repositories.items():
        (tmp_path / "by hand" / name).mkdir(parents=True)
        for file, content in files.items():
            (tmp_path / "by hand" / name / file).write_bytes(content)
    assert predict(cli, tmp_path / "fetched").code == 0
    by_hand = [f"model.dna_encoder.weights={tmp_path / 'by hand' / DNA}"]
    by_hand += [f"model.protein_encoder.weights={tmp_path / 'by hand' / PROTEIN}"]
    by_hand += [f"model.head.weights={tmp_path / 'by hand' / HEADS / '300_model.pth'}"]
    assert predict(cli, tmp_path / "given", *by_hand).code == 0
    assert results(tmp_path / "fetched") == results(tmp_path / "given")


def test_offline_nothing_is_asked_for(cli: Cli, hub: Hub, tmp_path: Path) -> None:
    result = predict(cli, tmp_path / "out", "offline=true")
    assert result.code == 2
    assert "300_model.pth: no such file" in result.err
    assert hub.requests == []
    head = MINI / "models" / "mlp" / "300_model.pth"
    result = predict(cli, tmp_path / "out", "offline=true", f"model.head.weights={head}")
    assert result.code == 2
    assert "not on this machine, and offline=true; put config.json" in result.err
    assert hub.requests == []


# The command


def test_weights_are_listed_fetched_named_and_verified(cli: Cli, hub: Hub, tmp_path: Path) -> None:
    listed = cli("weights", "list")
    assert listed.code == 0, listed.err
    (row,) = [line for line in listed.out.splitlines() if "virnucpro_500" in line and "protein_encoder" in line]
    for told in ("esm2_t36_3B_UR50D", "11.4 GB", "MIT", "no"):
        assert told in row
    assert cli("weights", "path", MODEL).code == 2, "not there yet"
    assert hub.requests == []
    fetched = cli("weights", "fetch", MODEL)
    assert fetched.code == 0, fetched.err
    paths = cli("weights", "path", MODEL)
    settings = paths.out.splitlines()
    assert len(settings) == 3
    assert predict(cli, tmp_path / "out", *settings).code == 0
    verified = cli("weights", "verify", MODEL)
    assert verified.code == 0, verified.err
    assert "Verified: 10 files" in verified.err
    assert len(hub.fetched()) == 10, "each file once"


def test_weights_that_changed_on_the_disk_are_found(cli: Cli, tmp_path: Path) -> None:
    assert cli("weights", "fetch", MODEL).code == 0
    head = next((tmp_path / "ours").rglob("300_model.pth"))
    content = bytearray(head.read_bytes())
    content[-1] ^= 1
    head.write_bytes(content)
    verified = cli("weights", "verify", MODEL)
    assert verified.code == 1
    assert "300_model.pth has the SHA-256" in verified.err
    refused = predict(cli, tmp_path / "out")
    assert refused.code == 2
    assert "remove its line there" in refused.err


def test_a_lock_file_under_version_control_is_kept_to(cli: Cli, hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "weights.lock").write_text("{}")
    assert cli("weights", "fetch", MODEL).code == 0
    lock = json.loads((tmp_path / "weights.lock").read_text())
    assert len(lock[f"{DNA}@{REVISIONS[DNA]}"]) == 5
    assert not (cache_folder() / "weights.lock").exists()
    lock[f"{PROTEIN}@{REVISIONS[PROTEIN]}"]["config.json"] = "0" * 64
    (tmp_path / "weights.lock").write_text(json.dumps(lock))
    result = predict(cli, tmp_path / "out")
    assert result.code == 2
    assert "config.json has the SHA-256" in result.err
    (tmp_path / "weights.lock").write_text("[]")
    assert "not a lock file of weights" in predict(cli, tmp_path / "out").err


def test_weights_are_carried_to_a_machine_without_a_network(
    cli: Cli, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = cli("weights", "export", tmp_path / "stick", MODEL)
    assert exported.code == 0, exported.err
    assert predict(cli, tmp_path / "here").code == 0
    hub.stop()
    monkeypatch.setenv("VIRNUCPRO_CACHE", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    assert cli("weights", "path", MODEL).code == 2
    imported = cli("weights", "import", tmp_path / "stick")
    assert imported.code == 0, imported.err
    assert "Imported: 10 files" in imported.err
    assert predict(cli, tmp_path / "there", "offline=true").code == 0
    assert results(tmp_path / "here") == results(tmp_path / "there")


def test_an_export_replaces_another_one_only_if_told_to(cli: Cli, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    words = ("weights", "export", stick, MODEL)
    assert cli(*words).code == 0
    assert cli(*words).code == 0, "the same weights"
    manifest = json.loads((stick / "manifest.json").read_text())
    other = {name: file for name, file in manifest["files"].items() if not name.endswith(".pth")}
    (stick / "manifest.json").write_text(json.dumps({"format_version": 1, "files": other}))
    result = cli(*words)
    assert result.code == 2
    assert f"folder={stick}: holds an export of other weights; give another folder, or overwrite=true" in result.err
    assert json.loads((stick / "manifest.json").read_text())["files"] == other
    assert cli(*words, "overwrite=true").code == 0
    assert json.loads((stick / "manifest.json").read_text()) == manifest
    mine = next(stick.rglob("config.json"))
    mine.write_text("mine")
    result = cli(*words, "overwrite=true")
    assert result.code == 2
    assert f"{mine}: not written by `weights export`, or changed since; move it away" in result.err
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("damage", ["a byte", "missing", "outside", "no list"])
def test_a_damaged_export_is_not_taken_in(cli: Cli, tmp_path: Path, damage: str) -> None:
    stick = tmp_path / "stick"
    assert cli("weights", "export", stick, MODEL).code == 0
    file = next(stick.rglob("config.json"))
    manifest = json.loads((stick / "manifest.json").read_text())
    if damage == "a byte":
        file.write_bytes(file.read_bytes() + b" ")
    elif damage == "missing":
        file.unlink()
    elif damage == "outside":
        entry = manifest["files"].popitem()[1]
        (stick / "manifest.json").write_text(json.dumps({"files": {"weights/../../x": entry}}))
    else:
        (stick / "manifest.json").write_text("[1]")
    result = cli("weights", "import", stick)
    assert result.code == (1 if damage in ("a byte", "missing") else 2)
    assert "copy the folder again" in result.err
    assert not (tmp_path / "x").exists()
    assert len(result.err.splitlines()) <= 12


def test_a_conversion_that_was_damaged_is_told(cli: Cli, tmp_path: Path) -> None:
    assert predict(cli, tmp_path / "first").code == 0
    shard = next((tmp_path / "ours" / "converted").rglob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:100])
    result = predict(cli, tmp_path / "second")
    assert result.code == 2
    assert "remove the folder; it will be written again" in result.err
    shutil.rmtree(shard.parent)
    assert predict(cli, tmp_path / "second").code == 0
    assert results(tmp_path / "first") == results(tmp_path / "second")


# Faults of servers and networks; each ends in one line, and the same command goes on


def fetch(cli: Cli) -> Result:
    return cli("weights", "fetch", MODEL)


def assert_one_clear_line(result: Result, *told: str) -> None:
    assert result.code in (1, 2)
    assert "Traceback" not in result.err
    (line,) = [line for line in result.err.splitlines() if line.startswith("Error: ")]
    for words in told:
        assert words in line


def answer(status: int, *headers: str) -> Callable:
    """Answer every request for a large file with a status."""

    def before(handler, path: str) -> object:
        if not path.endswith((".bin", ".pth")):
            return None
        handler.send_response(status)
        for header in headers:
            handler.send_header(*header.split(": "))
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return REFUSED

    return before


@pytest.mark.parametrize("status", [403, 404, 429, 503])
@pytest.mark.parametrize("part", ["encoder", "head"])
def test_a_server_that_refuses_is_told_and_the_same_command_goes_on(cli: Cli, hub: Hub, status: int, part: str) -> None:
    ending = ".bin" if part == "encoder" else ".pth"
    refuse = answer(status, "Retry-After: 0")
    hub.answers = lambda handler, path: refuse(handler, path) if path.endswith(ending) else None
    result = fetch(cli)
    assert_one_clear_line(
        result, "model.head.weights=300_model.pth" if part == "head" else "the download from the hub failed"
    )
    hub.answers = None
    again = fetch(cli)
    assert again.code == 0, again.err


@pytest.mark.parametrize("part", ["encoder", "head"])
def test_a_connection_that_breaks_is_gone_on_with(cli: Cli, hub: Hub, part: str) -> None:
    """Half of each large file comes, with the length of the whole; at the next try the rest."""
    seen: set[int] = set()

    def cut_once(content: bytes) -> bytes:
        if len(content) < 3000 or len(content) in seen:
            return content
        seen.add(len(content))
        return content[: len(content) // 2]

    hub.spoil = cut_once
    result = fetch(cli)
    assert result.code == 0, result.err
    assert seen, "something was cut"


def test_a_connection_that_always_breaks_is_told(cli: Cli, hub: Hub) -> None:
    hub.spoil = lambda content: content[: len(content) // 2] if len(content) > 3000 else content
    assert_one_clear_line(fetch(cli))
    hub.spoil = lambda content: content
    assert fetch(cli).code == 0


def test_a_page_with_status_200_in_place_of_a_file_is_told(cli: Cli, hub: Hub) -> None:
    hub.page = b"<html>Please log in</html>"
    assert_one_clear_line(fetch(cli), "model.head.weights=300_model.pth", "not such a file")
    hub.page = None
    assert fetch(cli).code == 0


def test_bytes_that_changed_on_the_way_are_noticed(cli: Cli, hub: Hub, tmp_path: Path) -> None:
    def flip(content: bytes) -> bytes:
        spoilt = bytearray(content)
        spoilt[-10] ^= 1
        return bytes(spoilt)

    hub.spoil = lambda content: content if content == hub.repositories[HEADS][1]["300_model.pth"] else flip(content)
    assert_one_clear_line(fetch(cli), "came damaged")
    hub.spoil = lambda content: content
    again = fetch(cli)
    assert again.code == 0, again.err


def test_a_trickle_is_given_up(cli: Cli, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("virnucpro_pl.models.weights.hub._SPEED_SECONDS", 0.0)
    monkeypatch.setattr("virnucpro_pl.models.weights.hub._SLOWEST", 1e18)
    assert_one_clear_line(fetch(cli), "bytes/s")
    monkeypatch.undo()


def test_too_little_room_is_told_before_anything_is_fetched(
    cli: Cli, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("virnucpro_pl.models.weights.hub._SPARE_BYTES", 1 << 60)
    assert_one_clear_line(fetch(cli), "are to be fetched into", "VIRNUCPRO_CACHE")
    assert hub.fetched() == []


def test_a_disk_that_fills_up_is_told(cli: Cli, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "hf" / "x"))

    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.file_download.http_get", full)
        assert_one_clear_line(fetch(cli), "no space left on the disk")
    assert fetch(cli).code == 0


def test_a_cache_that_may_only_be_read_serves_all_the_same(cli: Cli, hub: Hub, tmp_path: Path) -> None:
    assert predict(cli, tmp_path / "first").code == 0
    folders = [tmp_path / "hf", tmp_path / "ours"]
    try:
        for folder in folders:
            for path in (folder, *folder.rglob("*")):
                if not path.is_symlink():
                    path.chmod(0o555 if path.is_dir() else 0o444)
        result = predict(cli, tmp_path / "second")
        assert result.code == 0, result.err
    finally:
        for folder in folders:
            for path in (folder, *folder.rglob("*")):
                if path.is_dir():
                    path.chmod(0o755)
    assert results(tmp_path / "first") == results(tmp_path / "second")


def test_a_head_that_carries_code_is_refused_and_nothing_runs(cli: Cli, hub: Hub, tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "ran",)

    hub.repositories[HEADS][1]["300_model.pth"] = pickle.dumps(Evil(), protocol=2)
    result = predict(cli, tmp_path / "out")
    assert_one_clear_line(result, "300_model.pth")
    assert not (tmp_path / "ran").exists()


def test_the_server_says_what_the_hub_says() -> None:
    """A file's name in the hub's cache is git's, so that its sum can be checked."""
    assert git_blob(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"
