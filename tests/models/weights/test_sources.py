"""Where weights are looked for, and what the user is told when they are not there."""

import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch

from virnucpro_pl.files.digests import sha256_of
from virnucpro_pl.models.weights.head_source import HeadSource
from virnucpro_pl.models.weights.sources import DnabertSSource, EncoderSource, Esm2Source, read_tokenizer

REVISION = "00e47f96cdea35e4b6f5df89e5419cbe47d490c6"
DNA_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "pytorch_model.bin")


@pytest.fixture
def offline(monkeypatch, tmp_path) -> Path:
    """An empty hub cache and no network; returns the cache's folder."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return cache


def lay_out(cache: Path, name: str, revision: str, files: list[Path], ref: str | None = None) -> Path:
    """A repository as the hub's own client caches it."""
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / revision
    snapshot.mkdir(parents=True)
    for file in files:
        shutil.copy(file, snapshot / file.name)
    if ref:
        (repository / "refs").mkdir()
        (repository / "refs" / ref).write_text(revision)
    return snapshot


# On disk


def test_a_path_is_taken_as_it_is(mini, esm_file):
    folder = mini / "models" / "DNABERT-S"
    assert DnabertSSource(str(folder)).locate() == folder
    assert Esm2Source(str(esm_file)).locate() == esm_file


def test_a_path_is_taken_to_the_letter(monkeypatch, tmp_path, dna_folder):
    """The shell puts the home folder in place of ~; in quotes it is the name of a folder."""
    (tmp_path / "~").mkdir()
    dna_folder.rename(tmp_path / "~" / "DNABERT-S")
    monkeypatch.chdir(tmp_path)
    assert DnabertSSource("~/DNABERT-S").load().embedding_width == 48


def test_a_relative_path_of_two_parts_is_not_taken_for_a_name_on_the_hub(monkeypatch, tmp_path, dna_folder, offline):
    (tmp_path / "models").mkdir()
    dna_folder.rename(tmp_path / "models" / "DNABERT-S")
    monkeypatch.chdir(tmp_path)

    assert DnabertSSource("models/DNABERT-S").locate() == Path("models/DNABERT-S")


@pytest.mark.parametrize(
    "weights", ["/nowhere/DNABERT-S", "./a/b", "../a", "a/b/c", "weights.pt", "a b/c", "~nobody-here/x"]
)
def test_a_path_that_does_not_exist_is_told(offline, refused, weights):
    for source in (DnabertSSource, Esm2Source):
        refused(
            source(weights, key="model.some_encoder").locate, f"model.some_encoder.weights={weights}", "no such file"
        )


@pytest.mark.parametrize("weights", ["", "."])
def test_a_folder_that_holds_no_model_is_told(monkeypatch, tmp_path, refused, weights):
    monkeypatch.chdir(tmp_path)
    refused(DnabertSSource(weights, key="model.dna_encoder").load)


def test_a_file_in_place_of_the_folder_is_told(mini, refused):
    source = DnabertSSource(str(mini / "models" / "DNABERT-S" / "pytorch_model.bin"), key="model.dna_encoder")

    refused(source.load, "model.dna_encoder.weights", "folder")
    refused(source.tokenizer, "model.dna_encoder.weights", "folder")


# On the hub


def test_without_network_the_files_and_the_key_are_told(offline, refused):
    source = DnabertSSource("zhihan1996/DNABERT-S", REVISION, DNA_FILES, "model.dna_encoder")

    refused(source.locate, *DNA_FILES, REVISION, "model.dna_encoder.weights=", "zhihan1996/DNABERT-S")
    refused(source.load, *DNA_FILES)


def test_without_network_esm2_s_files_and_key_are_told_by_name(offline, refused):
    files = ("config.json", "pytorch_model.bin.index.json")
    source = Esm2Source("esm2_t36_3B_UR50D", "476b639933c8baad5ad09a60ac1a87f987b656fc", files, "model.protein_encoder")

    refused(source.locate, "esm2_t36_3B_UR50D", *files, "model.protein_encoder.weights=FOLDER")


def test_a_source_without_a_list_of_files_gives_a_readable_message(offline, refused):
    message = refused(EncoderSource("owner/name", key="model.dna_encoder").locate, "owner/name", "model.dna_encoder")

    assert "put  " not in message
    assert "  " not in message


@pytest.mark.parametrize("name", ["owner--x/name", "owner/name..x", "-owner/name", "owner/name.git"])
def test_a_name_the_hub_does_not_allow_is_told(offline, refused, name):
    refused(EncoderSource(name, key="model.dna_encoder").locate, name, "model.dna_encoder")


def test_a_pinned_revision_in_the_cache_is_used_without_network(offline, mini):
    folder = mini / "models" / "DNABERT-S"
    snapshot = lay_out(offline, "zhihan1996/DNABERT-S", REVISION, [folder / name for name in DNA_FILES])
    source = DnabertSSource("zhihan1996/DNABERT-S", REVISION, DNA_FILES)

    assert source.locate().resolve() == snapshot.resolve()
    assert source.load().embedding_width == 48
    assert read_tokenizer(source)([b"ACGT"])[0][0] == 1
    assert set(source.fingerprint()["files"]) == set(DNA_FILES)


def test_another_revision_in_the_cache_is_not_used(offline, mini, refused):
    folder = mini / "models" / "DNABERT-S"
    lay_out(offline, "zhihan1996/DNABERT-S", 40 * "a", [folder / name for name in DNA_FILES], ref="main")

    refused(DnabertSSource("zhihan1996/DNABERT-S", REVISION, DNA_FILES).locate, REVISION)


def test_without_a_revision_the_cached_main_is_used(offline, mini):
    folder = mini / "models" / "DNABERT-S"
    snapshot = lay_out(offline, "me/mine", 40 * "b", [folder / name for name in DNA_FILES], ref="main")

    assert EncoderSource("me/mine").locate().resolve() == snapshot.resolve()


@pytest.mark.parametrize("missing", ["pytorch_model.bin", "config.json", "tokenizer.json"])
def test_an_incomplete_cache_is_told_when_there_is_no_network(offline, mini, refused, missing):
    folder = mini / "models" / "DNABERT-S"
    files = [folder / name for name in DNA_FILES if name != missing]
    lay_out(offline, "zhihan1996/DNABERT-S", REVISION, files)
    source = DnabertSSource("zhihan1996/DNABERT-S", REVISION, DNA_FILES, "model.dna_encoder")

    refused(lambda: (source.load(), source.tokenizer()), missing)


def test_a_cached_hub_folder_of_esm2_resolves_by_the_models_name(offline, tmp_path, esm_file):
    config = tmp_path / "config.json"
    config.write_text("{}")
    snapshot = lay_out(offline, "facebook/esm2_t2_mini_UR50D", 40 * "c", [config])

    found = Esm2Source("esm2_t2_mini_UR50D", 40 * "c", ("config.json",)).locate()

    assert found.resolve() == snapshot.resolve()


# Where fair-esm keeps its downloads


@pytest.mark.parametrize("variable", ["TORCH_HOME", "XDG_CACHE_HOME", "HOME"])
def test_esm2_is_found_where_fair_esm_downloads_it(offline, monkeypatch, tmp_path, esm_file, variable):
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "kept"))
    checkpoints = Path(torch.hub.get_dir()) / "checkpoints"  # fair-esm asks torch where to
    assert checkpoints.is_relative_to(tmp_path)
    checkpoints.mkdir(parents=True)
    shutil.copy(esm_file, checkpoints)

    assert Esm2Source("esm2_t2_mini_UR50D").locate() == checkpoints / esm_file.name
    assert Esm2Source("esm2_t2_mini_UR50D").load().embedding_width == 32


def test_a_file_of_the_models_name_comes_first(offline, monkeypatch, tmp_path, esm_file):
    monkeypatch.chdir(tmp_path)
    shutil.copy(esm_file, tmp_path / "esm2_t2_mini_UR50D")

    assert Esm2Source("esm2_t2_mini_UR50D").locate() == Path("esm2_t2_mini_UR50D")


# The head and its chunk length


def test_missing_head_is_told(tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    refused(HeadSource("500_model.pth").load, "model.head.weights=500_model.pth", "Li-Jing-1997/VirNucPro")
    refused(HeadSource("elsewhere/500_model.pth").load, "elsewhere/500_model.pth")
    refused(HeadSource("mine.pth").load, "mine.pth")
    refused(HeadSource(str(tmp_path)).load, tmp_path)


@pytest.mark.parametrize(
    ("name", "configured", "expected"),
    [
        ("300_model.pth", None, 300),
        ("300_model.pth", 500, 300),
        ("500_model_copy.pth", 300, 500),
        ("mine.pth", 400, 400),
        ("mine.pth", None, None),
        ("1300_models.pth", 400, 400),
        ("my_300_model.pth", 400, 400),
    ],
)
def test_chunk_length_is_told_by_the_published_name_then_by_the_configuration(
    head_file, tmp_path, name, configured, expected
):
    shutil.copy(head_file, tmp_path / name)

    assert HeadSource(str(tmp_path / name), chunk_length=configured).trained_chunk_length() == expected


def test_chunk_length_in_the_file_wins_over_name_and_configuration(mini, tmp_path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(mini / "models" / "safetensors" / "mlp_300.safetensors")
    save_file(tensors, tmp_path / "500_model.safetensors", metadata={"chunk_length": "350"})

    assert HeadSource(str(tmp_path / "500_model.safetensors"), chunk_length=400).trained_chunk_length() == 350


@pytest.mark.parametrize("told", ["many", "", "3.5"])
def test_chunk_length_in_the_file_that_is_no_number_is_told(mini, tmp_path, refused, told):
    from safetensors.torch import load_file, save_file

    tensors = load_file(mini / "models" / "safetensors" / "mlp_300.safetensors")
    save_file(tensors, tmp_path / "head.safetensors", metadata={"chunk_length": told})

    refused(lambda: HeadSource(str(tmp_path / "head.safetensors")).check_chunk_length(300), "head.safetensors")


def test_other_chunk_lengths_are_refused_unless_allowed(head_file, refused):
    source = HeadSource(str(head_file))

    source.check_chunk_length(300)
    refused(
        lambda: source.check_chunk_length(500),
        "trained on chunks of 300",
        "data.chunk_length=500",
        "model.head.any_chunk_length=true",
    )
    HeadSource(str(head_file), any_chunk_length=True).check_chunk_length(500)


def test_a_head_that_does_not_tell_its_chunk_length_takes_any(head_file, tmp_path):
    shutil.copy(head_file, tmp_path / "mine.pth")

    HeadSource(str(tmp_path / "mine.pth")).check_chunk_length(123)


# What tells one set of weights from another


def test_identity_changes_with_the_file(tmp_path, head_file, dna_folder):
    path = tmp_path / "head.pth"
    shutil.copy(head_file, path)
    source, folder = HeadSource(str(path)), DnabertSSource(str(dna_folder))
    before, folder_before = source.fingerprint(), folder.fingerprint()
    assert source.fingerprint() == before

    shutil.copy(head_file.with_name("500_model.pth"), path)
    with (dna_folder / "config.json").open("a") as stream:
        stream.write(" ")

    assert source.fingerprint() != before
    assert folder.fingerprint() != folder_before


def test_sha256_is_that_of_the_files(dna_folder, head_file):
    import hashlib

    assert sha256_of(head_file) == {head_file.name: hashlib.sha256(head_file.read_bytes()).hexdigest()}
    assert sha256_of(dna_folder) == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in dna_folder.iterdir()
    }


# Weights that are not finite


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_encoders_whose_weights_are_not_finite(dna_folder, refused, value):
    file = dna_folder / "pytorch_model.bin"
    state = torch.load(file, weights_only=True)
    state["encoder.layer.0.mlp.wo.weight"][1, 2] = value
    torch.save(state, file)
    refused(DnabertSSource(str(dna_folder)).load, dna_folder, "layers.0.wo.weight holds NaN or infinite numbers")
