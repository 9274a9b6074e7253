"""Models whose every parameter matters."""

import torch


def randomise(module: torch.nn.Module) -> None:
    """Give every parameter, norms and biases too, a value that matters."""
    generator = torch.Generator().manual_seed(3)
    for name, parameter in module.named_parameters():
        if parameter.ndim == 1:
            noise = 0.3 * torch.randn(parameter.shape, generator=generator)
            parameter.data = noise + 1 if name.endswith("weight") else noise
        else:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 1.5 / parameter.shape[1] ** 0.5
