"""Estimators of what a model that never saw a sample would say."""

import pytest
import torch
from torch import nn

from lightning_unlearn.data.augment import shift_and_flip
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.imitation import Copies, KernelRegression, Neighbours, OwnAnswer
from lightning_unlearn.networks import SmallCNN


class Recorder(nn.Module):
    """Keeps what it is shown; its answer is the image's first two pixels."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(x)
        return x.flatten(1)[:, :2]


@pytest.fixture
def images():
    return torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_copies_are_shifted_and_mirrored_in_turn(images):
    """Every size is mirrored in half of its copies, with an even number of sizes too."""
    network = Recorder()
    Copies(4, (1, 2), flip=True).rows(network, images)
    assert len(network.seen) == 4
    ones = torch.ones(5, dtype=torch.int64)
    for seen, size, flipped in zip(network.seen, (1, 2, 1, 2), (False, True, True, False), strict=True):
        mirrored = torch.full((5,), flipped)
        candidates = [shift_and_flip(images, ones * y * size, ones * x * size, mirrored) for y in (-1, 1) for x in (-1, 1)]
        assert sum(torch.allclose(seen, c, atol=1e-5) for c in candidates) == 1


def test_every_sample_gets_the_same_copies_in_every_batch(images):
    whole = Copies(3, (0.5,), rotation=10).rows(Recorder(), images)
    parts = torch.cat([Copies(3, (0.5,), rotation=10).rows(Recorder(), part) for part in images.split(2)])
    torch.testing.assert_close(whole, parts)
    network = Recorder()
    found = Copies(3, (0.5,), rotation=10).estimate(Copies(3, (0.5,), rotation=10).rows(network, images), 2)
    torch.testing.assert_close(found, torch.stack([x.flatten(1)[:, :2].double().softmax(1) for x in network.seen]).mean(0))


def test_a_turn_by_a_quarter_is_a_turn_by_a_quarter():
    network = Recorder()
    image = torch.arange(9.0).reshape(1, 1, 3, 3)
    Copies(1, (), rotation=90, flip=False).rows(network, image)
    assert any(torch.allclose(network.seen[0], torch.rot90(image, turn, (2, 3)), atol=1e-4) for turn in (1, 3))


def test_half_a_pixel_is_the_mean_of_two():
    network = Recorder()
    image = torch.rand(1, 1, 6, 6)
    Copies(1, (0.5,), flip=False).rows(network, image)
    seen, x = network.seen[0][0, 0, 1:-1, 1:-1], image[0, 0]
    candidates = []
    for y in (-1, 1):
        for z in (-1, 1):
            shifted = [torch.roll(x, (a, b), (0, 1)) for a in (0, y) for b in (0, z)]
            candidates.append(torch.stack(shifted).mean(0)[1:-1, 1:-1])
    assert sum(torch.allclose(seen, c, atol=1e-5) for c in candidates) == 1


def test_its_own_answer_is_the_networks(images):
    network = SmallCNN(in_chans=3, num_classes=4, image_size=8).eval()
    rows = OwnAnswer().rows(network, images)
    torch.testing.assert_close(OwnAnswer().estimate(rows, 4), network(images).double().softmax(1))


@pytest.mark.parametrize("layer", ["head", "pixels", "stem"])
def test_neighbours_see_what_they_are_asked_to(layer, images):
    network = SmallCNN(in_chans=3, num_classes=4, image_size=8).eval()
    if layer == "stem":
        layer = next(name for name, m in network.named_modules() if isinstance(m, nn.Conv2d))
    rows = Neighbours(1, layer).rows(network, images)
    votes = Neighbours(1, layer).fit(rows, torch.tensor([0, 1, 2, 3, 0]), 4).of(rows)
    assert votes.argmax(1).tolist() == [0, 1, 2, 3, 0]
    if layer == "pixels":
        assert torch.equal(rows, images.flatten(1))


def test_rows_of_pixels_are_short_where_images_are_large():
    images = torch.randn(3, 2, 96, 20)
    rows = KernelRegression(layer="pixels").rows(nn.Identity(), images)
    torch.testing.assert_close(rows, images.reshape(3, 2, 32, 3, 20).mean(3).flatten(1))


def test_layers_have_names_that_every_network_knows(images):
    network = SmallCNN(in_chans=3, num_classes=4, image_size=8).eval()
    hidden = KernelRegression(layer="last_hidden").rows(network, images)
    torch.testing.assert_close(network.fc(hidden.relu()), network(images))
    maps = network.features[:2](images)  # the last third of the convolutions is the second of two
    pooled = maps.reshape(5, 16, 2, 4, 2, 4).mean((3, 5)).flatten(1)
    torch.testing.assert_close(KernelRegression(layer="last_stage").rows(network, images), pooled)


def test_tokens_are_averaged_and_a_network_of_a_head_alone_has_a_hidden_layer(images):
    network = nn.Sequential(nn.Flatten(2), nn.Linear(64, 6), nn.Identity(), nn.Flatten(1), nn.Linear(18, 4))
    rows = KernelRegression(layer="1").rows(network, images)
    torch.testing.assert_close(rows, network[:2](images).mean(1))
    alone = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    torch.testing.assert_close(KernelRegression(layer="last_hidden").rows(alone, images), alone(images))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Copies(0), "count is 0"),
        (lambda: Copies(2, (), flip=False), "something in which it differs"),
        (lambda: Neighbours(0), "k is 0"),
        (lambda: Neighbours(layer="nowhere").rows(SmallCNN(), torch.zeros(1, 3, 8, 8)), "no module 'nowhere'"),
    ],
)
def test_arguments_are_checked(build, message):
    with pytest.raises(ChainError, match=message):
        build()


def test_square_maps_with_channels_last_are_pooled_over_their_places():
    """As timm's Swin hands them to its last stage."""
    maps = torch.rand(3, 4, 4, 6)
    rows = KernelRegression(layer="last_stage", pool=2).pooled(maps)
    torch.testing.assert_close(rows, maps.reshape(3, 2, 2, 2, 2, 6).mean((2, 4)).movedim(-1, 1).flatten(1))
