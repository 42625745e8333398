"""Tensors that are functions of their names, so that a reference elsewhere can have the same without a file."""

import torch

from lightning_mav.seeding import generator


def drawn(name, *shape):
    return torch.randn(shape, generator=generator("published numbers", name))


def weights(shapes):
    """Matrices that keep the scale of what they map, norms near 1, biases near 0."""

    def one(name, shape):
        if len(shape) > 1:
            return drawn(name, *shape) / torch.tensor(shape[1:]).prod().sqrt()
        return drawn(name, *shape) / 10 + name.endswith("weight")

    return {name: one(name, shape) for name, shape in shapes.items()}


def with_weights(network):
    """Fill a network with ``weights``; it is only evaluated."""
    network.load_state_dict(weights({name: value.shape for name, value in network.state_dict().items()}))
    return network.eval().requires_grad_(False)
