"""From every published kind of file to the same module, and from the wrong one to a message."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from support import load_safely
from virnucpro_pl.models.weights.checkpoints import read_file
from virnucpro_pl.models.weights.convert import load_dnabert_s, load_esm2, load_head
from virnucpro_pl.models.weights.head_source import HeadSource
from virnucpro_pl.models.weights.sources import DnabertSSource, Esm2Source


def assert_same_weights(found: nn.Module, wanted: nn.Module) -> None:
    found_tensors, wanted_tensors = found.state_dict(), wanted.state_dict()
    assert found_tensors.keys() == wanted_tensors.keys()
    for name, tensor in wanted_tensors.items():
        assert torch.equal(found_tensors[name], tensor), name


def folder_with(config: Path, weights: Path, folder: Path) -> Path:
    folder.mkdir()
    shutil.copy(config, folder / "config.json")
    shutil.copy(weights, folder / weights.name)
    return folder


# Variants of one model


def test_dnabert_s_is_the_same_from_bin_and_from_safetensors(mini, dna_folder, tmp_path):
    (dna_folder / "pytorch_model.bin").unlink()
    shutil.copy(mini / "models" / "safetensors" / "dnabert_s.safetensors", dna_folder / "model.safetensors")

    assert_same_weights(load_dnabert_s(dna_folder), load_dnabert_s(mini / "models" / "DNABERT-S"))


def test_dnabert_s_weights_are_those_in_the_file(mini):
    tensors = load_file(mini / "models" / "safetensors" / "dnabert_s.safetensors")
    encoder = load_dnabert_s(mini / "models" / "DNABERT-S")

    layer = encoder.layers[1]
    prefix = "encoder.layer.1."
    for name, parameter in {
        "attention.self.Wqkv.weight": layer.Wqkv.weight,
        "attention.output.dense.bias": layer.dense.bias,
        "attention.output.LayerNorm.weight": layer.attention_norm.weight,
        "mlp.gated_layers.weight": layer.gated_layers.weight,
        "mlp.wo.weight": layer.wo.weight,
        "mlp.layernorm.bias": layer.mlp_norm.bias,
    }.items():
        assert torch.equal(parameter, tensors[prefix + name]), name


def test_dnabert_s_with_the_prefix_and_head_of_dnabert_2_is_the_same(mini, dna_folder):
    state = torch.load(dna_folder / "pytorch_model.bin", weights_only=True)
    prefixed = {f"bert.{name}": tensor for name, tensor in state.items() if not name.startswith("pooler.")}
    prefixed |= {"cls.predictions.decoder.weight": torch.zeros(512, 48), "bert.embeddings.position_ids": torch.ones(1)}
    torch.save(prefixed, dna_folder / "pytorch_model.bin")

    assert_same_weights(load_dnabert_s(dna_folder), load_dnabert_s(mini / "models" / "DNABERT-S"))


def test_esm2_is_the_same_from_pt_and_from_safetensors(mini, esm_file):
    from_safetensors = load_esm2(mini / "models" / "safetensors" / "esm2.safetensors")
    from_pt = load_esm2(esm_file)

    assert_same_weights(from_safetensors, from_pt)
    assert from_safetensors.config == from_pt.config
    assert from_pt.layers[0].fc1.weight.dtype == torch.float32, "stored as float16, computed in float32"


def test_esm2_is_the_same_when_pickled_in_the_old_format(esm_file, tmp_path):
    content = load_safely(esm_file)
    torch.save(content, tmp_path / "old.pt", _use_new_zipfile_serialization=False)

    assert_same_weights(load_esm2(tmp_path / "old.pt"), load_esm2(esm_file))


@pytest.mark.parametrize("number", ["300", "500"])
def test_head_is_the_same_from_module_and_from_safetensors(mini, number):
    assert_same_weights(
        HeadSource(str(mini / "models" / "safetensors" / f"mlp_{number}.safetensors")).load(),
        HeadSource(str(mini / "models" / "mlp" / f"{number}_model.pth")).load(),
    )


@pytest.mark.parametrize("name", ["head", "head.bin", "head.pth"])
def test_safetensors_are_told_by_content_not_by_name(mini, head_file, tmp_path, name):
    """Kind: anything decided by the name of a file (A1)."""
    shutil.copy(mini / "models" / "safetensors" / "mlp_300.safetensors", tmp_path / name)
    assert_same_weights(HeadSource(str(tmp_path / name)).load(), HeadSource(str(head_file)).load())


def test_head_saved_on_a_gpu_is_the_same(mini, head_file):
    assert_same_weights(
        HeadSource(str(mini / "models" / "mlp" / "300_model_cudatag.pth")).load(), HeadSource(str(head_file)).load()
    )


def test_head_saved_as_a_state_dict_is_the_same(golden):
    heads = golden / "models" / "mlp"
    whole = HeadSource(str(heads / "300_model.pth")).load()

    assert_same_weights(HeadSource(str(heads / "300_model_state_dict.pth")).load(), whole)
    assert_same_weights(HeadSource(str(golden / "models" / "safetensors" / "mlp_300.safetensors")).load(), whole)


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state_dict"])
def test_head_inside_a_training_checkpoint_is_the_same(head_file, tmp_path, key):
    tensors = read_file(head_file).tensors
    torch.save({"epoch": 3, key: tensors, "chunk_length": 300}, tmp_path / "head.pth")
    source = HeadSource(str(tmp_path / "head.pth"))

    assert_same_weights(source.load(), HeadSource(str(head_file)).load())
    assert source.trained_chunk_length() == 300


def test_two_heads_differ(mini, head_file):
    """Or the comparisons above would not tell anything."""
    with pytest.raises(AssertionError):
        assert_same_weights(
            HeadSource(str(mini / "models" / "mlp" / "500_model.pth")).load(), HeadSource(str(head_file)).load()
        )


@pytest.mark.parametrize("number", ["300", "500"])
def test_modules_come_ready_to_score(golden, mini, esm_file, number):
    """500_model.pth is pickled while training; batch norm and dropout must not stay so."""
    head = HeadSource(str(golden / "models" / "mlp" / f"{number}_model.pth")).load()
    for module in (head, load_dnabert_s(mini / "models" / "DNABERT-S"), load_esm2(esm_file)):
        assert not any(part.training for part in module.modules())
        assert not any(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_encoders_take_the_default_precision_and_the_head_stays_in_float32(mini, esm_file, head_file, dtype):
    torch.set_default_dtype(dtype)
    try:
        modules = load_dnabert_s(mini / "models" / "DNABERT-S"), load_esm2(esm_file)
        head = HeadSource(str(head_file)).load()
    finally:
        torch.set_default_dtype(torch.float32)

    for module in modules:
        assert {parameter.dtype for parameter in module.parameters()} == {dtype}
    assert {tensor.dtype for tensor in head.state_dict().values()} == {torch.float32, torch.int64}


# What a checkpoint may hold besides


def test_only_parts_that_embeddings_do_not_need_are_left_out_of_esm2(esm_variant, esm_file, refused):
    additions = {
        "encoder.lm_head.dense.weight": torch.zeros(3),
        "encoder.lm_head.weight": torch.zeros(3),
        "contact_head.regression.weight": torch.zeros(1, 8),
        "encoder.sentence_encoder.layers.0.self_attn.rot_emb.inv_freq": torch.tensor([1.0, 0.1, 0.01, 0.001]).half(),
    }
    with_additions = esm_variant(lambda content: content["model"].update(additions))
    assert_same_weights(load_esm2(with_additions), load_esm2(esm_file))

    for name in ("adapter.weight", "layers.0.adapter.weight", "layers.0.lm_head.weight", "layers.2.fc1.bias"):
        path = esm_variant(lambda content, name=name: content["model"].update({name: torch.zeros(3)}))
        refused(lambda path=path: load_esm2(path), path, name)


def test_only_parts_that_embeddings_do_not_need_are_left_out_of_dnabert_s(mini, dna_folder, refused):
    file = dna_folder / "pytorch_model.bin"
    state = torch.load(file, weights_only=True)
    assert "pooler.dense.weight" in state
    torch.save({**state, "embeddings.position_ids": torch.ones(1, 512)}, file)
    assert_same_weights(load_dnabert_s(dna_folder), load_dnabert_s(mini / "models" / "DNABERT-S"))

    for name in (
        "embeddings.position_embeddings.weight",
        "encoder.layer.0.pooler.weight",
        "encoder.layer.2.mlp.wo.bias",
    ):
        torch.save({**state, name: torch.zeros(3)}, file)
        refused(lambda: load_dnabert_s(dna_folder), dna_folder, name.rpartition("mlp.")[2], "not part of the model")


def test_nothing_more_may_be_in_a_head(head_file, tmp_path, refused):
    tensors = read_file(head_file).tensors
    for name in ("position_ids", "pooler.weight", "hidden_layer2.weight"):
        torch.save({**tensors, name: torch.zeros(3)}, tmp_path / "head.pth")
        refused(HeadSource(str(tmp_path / "head.pth")).load, tmp_path / "head.pth", name)


# What is missing or of another shape


def test_every_tensor_of_esm2_is_needed(esm_variant, esm_file, refused):
    names = load_safely(esm_file)["model"]
    needed = [name for name in names if "lm_head" not in name and "contact" not in name and "inv_freq" not in name]
    assert len(needed) == 2 * 16 + 3
    for name in needed:
        path = esm_variant(lambda content, name=name: content["model"].pop(name))
        refused(lambda path=path: load_esm2(path), path)


def test_every_tensor_of_dnabert_s_is_needed(dna_folder, refused):
    file = dna_folder / "pytorch_model.bin"
    state = torch.load(file, weights_only=True)
    needed = [name for name in state if not name.startswith("pooler.")]
    assert len(needed) == 2 * 11 + 4
    for name in needed:
        torch.save({other: tensor for other, tensor in state.items() if other != name}, file)
        refused(lambda: load_dnabert_s(dna_folder), dna_folder, "missing")


def test_every_tensor_of_a_head_is_needed(head_file, tmp_path, refused):
    tensors = read_file(head_file).tensors
    assert len(tensors) == 9
    for name in tensors:
        torch.save({other: tensor for other, tensor in tensors.items() if other != name}, tmp_path / "head.pth")
        refused(HeadSource(str(tmp_path / "head.pth")).load, tmp_path / "head.pth")


@pytest.mark.parametrize(
    "shape", [(), (3,), (31, 32), (32, 31), (2, 16, 32)], ids=lambda shape: "x".join(map(str, shape)) or "scalar"
)
def test_a_tensor_of_another_shape_is_told(mini, esm_file, head_file, tmp_path, dna_folder, refused, shape):
    esm = load_safely(esm_file)
    state = dict(esm["model"])
    for name in ("embed_tokens", "layers.0.fc1", "layers.0.self_attn.q_proj", "layers.1.self_attn.out_proj"):
        changed = {f"encoder.sentence_encoder.{name}.weight": torch.zeros(shape)}
        torch.save({**esm, "model": {**state, **changed}}, tmp_path / "esm.pt")
        refused(lambda: load_esm2(tmp_path / "esm.pt"), tmp_path / "esm.pt")

    file = dna_folder / "pytorch_model.bin"
    state = torch.load(file, weights_only=True)
    for name in ("embeddings.word_embeddings.weight", "encoder.layer.0.attention.self.Wqkv.weight"):
        torch.save({**state, name: torch.zeros(shape)}, file)
        refused(lambda: load_dnabert_s(dna_folder), dna_folder)

    tensors = read_file(head_file).tensors
    for name in ("hidden_layer.weight", "output_layer.weight", "bn1.running_var"):
        torch.save({**tensors, name: torch.zeros(shape)}, tmp_path / "head.pth")
        refused(HeadSource(str(tmp_path / "head.pth")).load, tmp_path / "head.pth")


def test_head_of_another_number_of_classes_is_told(head_file, tmp_path, refused):
    """Its third score would be dropped silently."""
    changed = {"output_layer.weight": torch.zeros(3, 512), "output_layer.bias": torch.zeros(3)}
    torch.save({**read_file(head_file).tensors, **changed}, tmp_path / "head.pth")

    refused(HeadSource(str(tmp_path / "head.pth")).load, tmp_path / "head.pth")


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64])
def test_weights_that_are_no_floating_point_numbers_are_told(esm_variant, head_file, tmp_path, refused, dtype):
    """As quantised checkpoints hold them."""
    name = "encoder.sentence_encoder.layers.0.fc1.weight"
    esm = esm_variant(lambda content: content["model"].update({name: content["model"][name].to(dtype)}))
    tensors = read_file(head_file).tensors
    torch.save({**tensors, "hidden_layer.weight": tensors["hidden_layer.weight"].to(dtype)}, tmp_path / "head.pth")

    refused(lambda: load_esm2(esm), esm)
    refused(HeadSource(str(tmp_path / "head.pth")).load, tmp_path / "head.pth")


def test_rotary_frequencies_of_another_number_are_told(esm_variant, refused):
    """One would be spread over all channels without an error."""
    for frequencies in (torch.ones(1), torch.ones(3)):
        path = esm_variant(
            lambda content, frequencies=frequencies: content["model"].update(
                {f"encoder.sentence_encoder.layers.{i}.self_attn.rot_emb.inv_freq": frequencies for i in range(2)}
            )
        )
        refused(lambda path=path: load_esm2(path), path, "inv_freq")


# One file taken for another


def test_swapped_files_are_told(mini, esm_file, head_file, refused):
    dna_folder = mini / "models" / "DNABERT-S"
    contacts = esm_file.with_name("esm2_t2_mini_UR50D-contact-regression.pt")
    for wrong in (head_file, dna_folder, dna_folder / "pytorch_model.bin", contacts, dna_folder / "config.json"):
        refused(Esm2Source(str(wrong)).load, wrong)
    for wrong in (esm_file, contacts, dna_folder / "pytorch_model.bin", dna_folder, dna_folder / "config.json"):
        refused(HeadSource(str(wrong)).load, wrong)
    for wrong in (esm_file, head_file, dna_folder / "pytorch_model.bin", esm_file.parent):
        refused(DnabertSSource(str(wrong)).load, wrong)


def test_a_folder_of_one_encoder_with_the_weights_of_the_other_is_told(mini, tmp_path, refused, esm_file):
    config = mini / "models" / "DNABERT-S" / "config.json"
    shutil.copy(esm_file, tmp_path / "pytorch_model.bin")
    folder = folder_with(config, tmp_path / "pytorch_model.bin", tmp_path / "folder")

    refused(lambda: load_dnabert_s(folder), folder)


def test_configuration_of_a_larger_model_is_told(dna_folder, refused):
    config = json.loads((dna_folder / "config.json").read_text())
    (dna_folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 12}))
    refused(lambda: load_dnabert_s(dna_folder), dna_folder, "missing")
    (dna_folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    refused(lambda: load_dnabert_s(dna_folder), dna_folder, "not part of the model")


def test_safetensors_without_sizes_is_told(mini, tmp_path, refused):
    tensors = load_file(mini / "models" / "safetensors" / "esm2.safetensors")
    save_file(tensors, tmp_path / "esm.safetensors", metadata={"num_layers": "2"})

    refused(
        lambda: load_esm2(tmp_path / "esm.safetensors"), tmp_path / "esm.safetensors", "embed_dim", "attention_heads"
    )


def test_an_esm_1_folder_with_learned_positions_is_told(mini, tmp_path, refused):
    folder = tmp_path / "esm1b"
    folder.mkdir()
    sizes = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4}
    shutil.copy(mini / "models" / "safetensors" / "esm2.safetensors", folder / "model.safetensors")
    for key, value in {"position_embedding_type": "absolute", "emb_layer_norm_before": True}.items():
        (folder / "config.json").write_text(json.dumps({**sizes, key: value}))
        refused(lambda: load_esm2(folder), folder, key)


def test_head_for_other_encoders_is_told_with_the_widths(golden, mini, esm_file, refused):
    from virnucpro_pl.models.weights.head_source import check_widths

    source = HeadSource(str(golden / "models" / "mlp" / "300_model.pth"))
    encoders = load_dnabert_s(mini / "models" / "DNABERT-S"), load_esm2(esm_file)
    widths = [encoder.embedding_width for encoder in encoders]

    refused(lambda: check_widths(*widths, source.load(), source), "128", "48", "32", "80", "model.head.weights")
    check_widths(*widths, load_head(read_file(mini / "models" / "mlp" / "300_model.pth"), Path("head")), source)
