"""The last bit does not depend on the number of threads."""

import pytest
import torch

from virnucpro_pl.models.encoders.pointwise import cos_sin, gated_gelu, gelu_


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("shape", [(1, 7), (333, 96), (1001, 257), (4097, 48)])
@pytest.mark.parametrize("gated", [False, True])
def test_gelu_is_torchs_on_any_number_of_threads(threads, shape, gated) -> None:
    torch.manual_seed(0)
    x, factor = torch.randn(shape), torch.randn(shape)
    results = []
    for number in (1, 2, 3, 5):
        threads(number)
        results.append(gated_gelu(torch.cat([x, factor], dim=1)) if gated else gelu_(x.clone()))
    assert all(torch.equal(result, results[0]) for result in results)
    expected = torch.nn.functional.gelu(x) * (factor if gated else 1)
    torch.testing.assert_close(results[0], expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("function", [gelu_, gated_gelu])
@pytest.mark.parametrize("width", [96, 128, 3072])
def test_gelu_of_a_row_does_not_depend_on_the_rows_beside_it(width, function) -> None:
    torch.manual_seed(0)
    x = torch.randn(700, 2 * width)
    whole = function(x.clone())
    for number in (2, 6, 16, 129, 171, 257):
        assert torch.equal(function(x[:number].clone()), whole[:number]), number


@pytest.mark.parametrize("shape", [(5, 4), (3001, 33)])
def test_cos_and_sin_are_torchs_on_any_number_of_threads(threads, shape) -> None:
    angles = torch.rand(shape) * 1000
    results = []
    for number in (1, 2, 3, 5):
        threads(number)
        results.append(torch.stack(cos_sin(angles)))
    assert all(torch.equal(result, results[0]) for result in results)
    torch.testing.assert_close(results[0], torch.stack([angles.cos(), angles.sin()]), atol=1e-6, rtol=0)
