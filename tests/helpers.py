"""What several test files build with; a module of its own, because folders have conftest files of their own."""

import torch

from lightning_unlearn.classifier import Classifier


def sgd(lr, **kwargs):
    return lambda params: torch.optim.SGD(params, lr=lr, **kwargs)


def untrained(network="SmallCNN"):
    """A small network for the digits."""
    arguments = {"SmallCNN": {"widths": [8, 16], "hidden": 32}, "ResNet": {"width": 4}}[network]
    return Classifier(network, 10, 1, image_size=8, network_args=arguments, optimizer=sgd(0.1, momentum=0.9))
