"""The classifier against its published definition, built from torch's own layers."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from virnucpro_pl.models.head import OTHERS, VIRUS, Head


@pytest.fixture
def published() -> nn.Sequential:
    """The published layers with weights that all matter."""
    torch.manual_seed(4)
    layers = nn.Sequential(
        OrderedDict(
            hidden_layer=nn.Linear(20, 16), bn1=nn.BatchNorm1d(16), relu=nn.ReLU(), output_layer=nn.Linear(16, 2)
        )
    )
    for tensor in layers.bn1.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5)
    return layers.eval()


@pytest.fixture
def head(published) -> Head:
    head = Head(20, hidden_dim=16)
    head.load_state_dict(published.state_dict())
    return head.eval().requires_grad_(False)


def test_scores_are_the_softmax_of_the_published_layers(head, published):
    embedding = torch.randn(50, 20)
    with torch.inference_mode():
        logits = published(embedding).double().numpy()
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    scores = head.scores(embedding)

    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(scores.sum(dim=1).numpy(), 1, atol=1e-6)
    assert scores.dtype == torch.float32


def test_the_first_score_is_of_others_and_the_second_of_virus(head):
    head.output_layer.bias += torch.tensor([0.0, 100.0])

    scores = head.scores(torch.randn(5, 20))

    assert (OTHERS, VIRUS) == (0, 1)
    assert (scores[:, VIRUS] > 0.99).all()


def test_scores_do_not_depend_on_the_other_embeddings(head):
    embedding = torch.randn(8, 20)
    one_by_one = torch.cat([head.scores(row[None]) for row in embedding])

    np.testing.assert_array_equal(head.scores(embedding).numpy(), one_by_one.numpy())
    assert head.scores(embedding[:0]).shape == (0, 2)


def test_the_published_size_is_the_default():
    head = Head(768 + 2560)

    assert head.num_inputs == 3328
    assert {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()} == {
        "hidden_layer.weight": (512, 3328),
        "hidden_layer.bias": (512,),
        **{f"bn1.{name}": (512,) for name in ("weight", "bias", "running_mean", "running_var")},
        "bn1.num_batches_tracked": (),
        "output_layer.weight": (2, 512),
        "output_layer.bias": (2,),
    }
    assert (head.dropout.p, head.bn1.eps) == (0.5, 1e-5)
