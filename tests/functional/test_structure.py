"""Parts of real networks: ours, timm's and torchvision's."""

import pickle

import pytest
import timm
import torchvision
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from lightning_unlearn.functional.anatomy import (
    blocks,
    has_normalisation,
    head_name,
    last_half,
    last_hidden,
    last_stage,
    layer_weights,
    parameter_name,
    weight_layers,
)
from lightning_unlearn.functional.structure import ParameterSelector, first_blocks, last_blocks, parameters_of
from lightning_unlearn.networks import MLP, ResNet, SmallCNN


def vit():
    return timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10, embed_dim=24, num_heads=3)


def convnext():
    return timm.create_model("convnext_atto", num_classes=10, dims=(8, 16, 24, 32))


def timm_resnet():
    return timm.create_model("resnet18", num_classes=10)


def test_a_network_of_one_layer_names_its_parameters_without_a_dot():
    assert (parameter_name("", "bias"), parameter_name("block.conv")) == ("bias", "block.conv.weight")
    assert layer_weights(nn.Linear(3, 2), ["weight", "bias"]) == ["weight"]


class Wrapped(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network


HEADS = [
    (lambda: MLP(), "fc"),
    (lambda: SmallCNN(), "fc"),
    (lambda: ResNet(), "linear"),
    (timm_resnet, "fc"),
    (vit, "head"),
    (convnext, "head.fc"),
    (lambda: torchvision.models.resnet18(), "fc"),
    (lambda: torchvision.models.squeezenet1_1(), "classifier.1"),
    (lambda: torchvision.models.vgg11(), "classifier.6"),
    (lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), "2"),
    (lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 1), nn.AdaptiveAvgPool2d(1)), "1"),
]


@pytest.mark.parametrize(("make", "expected"), HEADS)
def test_head_is_the_layer_that_gives_logits(make, expected):
    assert head_name(make()) == expected


@pytest.mark.parametrize("make", [vit, convnext, timm_resnet, lambda: ResNet(norm="group"), lambda: nn.RMSNorm(3)])
def test_networks_with_normalisation(make):
    assert has_normalisation(make())


def normalised_input():
    return nn.Sequential(torchvision.transforms.Normalize(0.5, 0.5), nn.Flatten(), spectral_norm(weight_norm(nn.Linear(4, 2))))


@pytest.mark.parametrize("make", [SmallCNN, MLP, normalised_input, lambda: timm.create_model("nf_resnet26", num_classes=3)])
def test_networks_without_normalisation(make):
    assert not has_normalisation(make())


def test_head_before_the_body_is_found_by_name():
    network = nn.ModuleDict({"fc": nn.Linear(3, 2), "body": nn.Linear(4, 3)})
    assert head_name(network) == "fc"


def test_a_network_without_head_is_refused():
    with pytest.raises(ValueError, match="needed: a classifier"):
        head_name(nn.Sequential(nn.Conv2d(1, 2, 3)))


def test_weight_layers_are_convolutions_and_linear_layers_in_order():
    assert list(weight_layers(ResNet(blocks=(1,), norm="group"))) == [
        "conv1",
        "layer1.0.conv1",
        "layer1.0.conv2",
        "linear",
    ]


BLOCKS = [
    (lambda: MLP(hidden=(8, 8, 8)), []),
    (lambda: SmallCNN(), []),
    (lambda: torchvision.models.vgg11_bn(), []),
    (lambda: ResNet(blocks=(2, 1)), ["layer1.0", "layer1.1", "layer2.0"]),
    (timm_resnet, [f"layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1)]),
    (lambda: torchvision.models.resnet18(), [f"layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1)]),
    (vit, [f"blocks.{i}" for i in range(12)]),
    (convnext, [f"stages.{i}.blocks.{j}" for i, n in enumerate((2, 2, 6, 2)) for j in range(n)]),
]


@pytest.mark.parametrize(("make", "expected"), BLOCKS)
def test_blocks(make, expected):
    assert blocks(make()) == expected


def test_a_block_with_squeeze_and_excitation_counts_once():
    network = torchvision.models.efficientnet_b0()
    found = blocks(network)
    assert len(found) == 16
    assert not any("block." in name for name in found)


STAGES = [
    (lambda: MLP(hidden=(8, 7, 6)), ["layers.2.0"]),
    (lambda: MLP(hidden=()), ["fc"]),
    (lambda: SmallCNN(), ["features.2", "hidden.1"]),
    (lambda: ResNet(blocks=(1, 1, 2)), ["layer3.0", "layer3.1"]),
    (timm_resnet, ["layer4.0", "layer4.1"]),
    (lambda: torchvision.models.resnet18(), ["layer4.0", "layer4.1"]),
    (vit, ["blocks.10", "blocks.11"]),
    (convnext, ["stages.3.blocks.0", "stages.3.blocks.1"]),
    (
        lambda: torchvision.models.vgg11(),
        ["features.13", "features.16", "features.18", "classifier.0", "classifier.3"],
    ),
]


@pytest.mark.parametrize(("make", "expected"), STAGES)
def test_last_stage(make, expected):
    assert last_stage(make()) == expected


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: MLP(hidden=(8, 7)), "layers.1.0"),
        (lambda: MLP(hidden=()), "fc"),
        (lambda: SmallCNN(), "hidden.1"),
        (lambda: ResNet(), "layer3.0.conv2"),  # in the order of registration the shortcut is the last
        (timm_resnet, "layer4.1.conv2"),
        (lambda: timm.create_model("resnet10t", num_classes=10), "layer4.0.conv2"),
        (lambda: timm.create_model("seresnet18", num_classes=10), "layer4.1.conv2"),
        (vit, "blocks.11.mlp.fc2"),
        (convnext, "stages.3.blocks.1.mlp.fc2"),
        (lambda: timm.create_model("efficientnet_b0", num_classes=10), "conv_head"),
        (lambda: Wrapped(ResNet()), "network.layer3.0.conv2"),
    ],
)
def test_last_hidden(make, expected):
    assert last_hidden(make()) == expected


def test_last_half_rounds_up():
    assert last_half(timm_resnet()) == ["layer3.0", "layer3.1", "layer4.0", "layer4.1"]
    assert last_half(ResNet(blocks=(1, 1, 1))) == ["layer2.0", "layer3.0"]
    assert last_half(SmallCNN()) == ["features.2", "hidden.1"]
    assert last_half(MLP(hidden=())) == ["fc"]
    names = ParameterSelector(["last_half"]).names(SmallCNN())
    assert names == ["features.2.weight", "features.2.bias", "hidden.1.weight", "hidden.1.bias"]


@pytest.mark.parametrize("make", [make for make, _ in BLOCKS])
def test_the_chain_is_a_partition_from_stem_to_head(make):
    network = make()
    every = [name for name, _ in network.named_parameters()]
    length = next(k for k in range(1, len(every) + 1) if len(first_blocks(network, k)) == len(every))
    seen = []
    for k in range(1, length + 1):
        new = [name for name in first_blocks(network, k) if name not in seen]
        assert new, "an empty block"
        assert sorted(seen + new) == sorted(first_blocks(network, k))
        assert set(first_blocks(network, k)).isdisjoint(last_blocks(network, length - k) if k < length else ())
        seen += new
    assert last_blocks(network, length) == every
    assert last_blocks(network, 1) == parameters_of(network, "head")
    assert first_blocks(network, 1) == parameters_of(network, "stem")
    with pytest.raises(ValueError, match=f"needed: 1 to {length}"):
        first_blocks(network, length + 1)
    with pytest.raises(ValueError, match="needed: 1 to"):
        last_blocks(network, 0)


def test_what_lies_around_blocks_is_assigned():
    stem = parameters_of(vit(), "stem")
    assert stem == ["cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"]
    assert "norm.weight" in last_blocks(vit(), 2)
    network = convnext()
    assert "stages.3.downsample.1.weight" in last_blocks(network, 3)
    assert "stages.3.downsample.1.weight" not in last_blocks(network, 2)
    network = ResNet(blocks=(1, 1))
    assert parameters_of(network, "stem") == ["conv1.weight", "bn1.weight", "bn1.bias"]


def test_the_selector_takes_the_union_in_order_and_travels():
    network = ResNet(blocks=(1, 1), norm="group")
    every = [name for name, _ in network.named_parameters()]
    assert ParameterSelector().names(network) == every
    selector = ParameterSelector(["head"], ["layer1.*.conv?.weight"], first_blocks=1)
    names = pickle.loads(pickle.dumps(selector)).names(network)
    assert names == [
        "conv1.weight",
        "bn1.weight",
        "bn1.bias",
        "layer1.0.conv1.weight",
        "layer1.0.conv2.weight",
        "linear.weight",
        "linear.bias",
    ]
    assert ParameterSelector(last_blocks=1).names(network) == ["linear.weight", "linear.bias"]
    assert ParameterSelector("last_stage").names(network) == parameters_of(network, "last_stage")
    assert all(name.startswith("layer2.0.") for name in parameters_of(network, "last_stage"))


def test_errors_name_what_exists():
    network = ResNet(blocks=(1, 1))
    with pytest.raises(ValueError, match=r"nearest: .*layer2\.0\.conv1\.weight"):
        ParameterSelector(patterns=["layer2.conv1.weight"]).names(network)
    with pytest.raises(ValueError, match=r"nearest: layer2\.\*"):
        ParameterSelector(patterns=["layer2"]).names(network)
    with pytest.raises(ValueError, match=r"needed: .*last_stage, head, stem"):
        ParameterSelector(["body"])
    with pytest.raises(ValueError, match="0 or more"):
        ParameterSelector(last_blocks=-1)
    with pytest.raises(ValueError, match="chooses no parameter"):
        ParameterSelector([]).names(network)
    with pytest.raises(ValueError, match="needed: one of whole, last_half"):
        parameters_of(network, "body")
