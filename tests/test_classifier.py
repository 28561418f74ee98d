import copy

import pytest
import torch
import torch.nn.functional as F
from helpers import untrained
from lightning.pytorch import Trainer
from torch import nn

from lightning_unlearn.classifier import Classifier, build_network, default_optimizer, untrained_copy
from lightning_unlearn.exceptions import CheckpointError, ConfigError
from lightning_unlearn.networks import MLP, ResNet
from lightning_unlearn.training import quiet
from lightning_unlearn.weights.checkpoint import save_weights


def test_networks_by_short_name_class_path_and_timm_name():
    assert isinstance(build_network("ResNet", 7, 1, {"width": 4}), ResNet)
    own = build_network("lightning_unlearn.networks.MLP", 7, 1, {"hidden": [8]}, image_size=6)
    assert isinstance(own, MLP)
    assert own(torch.zeros(2, 1, 6, 6)).shape == (2, 7)
    timm = build_network("resnet10t", 7, 1, {})
    assert timm(torch.zeros(2, 1, 32, 32)).shape == (2, 7)


def test_image_size_is_given_only_to_those_who_take_it():
    assert Classifier("SmallCNN", 3, 1, image_size=12)(torch.zeros(1, 1, 12, 12)).shape == (1, 3)
    assert Classifier("ResNet", 3, 1, image_size=12)(torch.zeros(1, 1, 12, 12)).shape == (1, 3)


def test_the_stem_for_small_images():
    network = build_network("resnet18", 5, 3, {}, small_image_stem=True)
    assert network.conv1.weight.shape == (64, 3, 3, 3)
    assert network.conv1.stride == (1, 1)
    assert isinstance(network.maxpool, nn.Identity)
    with pytest.raises(ConfigError, match="small_image_stem knows ResNets"):
        build_network("MLP", 5, 3, {}, small_image_stem=True)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("resnet81", {}, "timm cannot build 'resnet81'.*Nearest: 'resnet"),
        ("nowhere.Network", {}, "No network 'nowhere.Network'.*Give a timm name or the class path"),
        ("lightning_unlearn.networks.Nothing", {}, "No network"),
        ("MLP", {"depth": 3}, "MLP refuses its arguments"),
    ],
)
def test_networks_that_are_not_there(name, arguments, message):
    with pytest.raises(ConfigError, match=message):
        build_network(name, 5, 3, arguments)


def test_a_checkpoint_rebuilds_its_classifier(trained, tmp_path):
    save_weights(tmp_path / "model.ckpt", trained.state_dict(), dict(trained.hparams))
    loaded = Classifier.load(tmp_path / "model.ckpt")
    x = torch.randn(4, 1, 8, 8)
    assert torch.equal(loaded(x), trained(x))
    assert not loaded.training
    save_weights(tmp_path / "nameless.ckpt", trained.state_dict(), {})
    with pytest.raises(CheckpointError, match="does not name their network"):
        Classifier.load(tmp_path / "nameless.ckpt")


def test_an_untrained_copy_is_what_the_constructor_draws(trained):
    torch.manual_seed(5)
    copied = untrained_copy(trained)
    torch.manual_seed(5)
    built = untrained()
    assert all(torch.equal(value, built.state_dict()[name]) for name, value in copied.state_dict().items())
    assert copied.optimizer is trained.optimizer
    assert not torch.equal(copied.network.fc.weight, trained.network.fc.weight)


def test_an_untrained_copy_of_any_module():
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    module(torch.randn(8, 3))
    before = copy.deepcopy(module.state_dict())
    new = untrained_copy(module)
    assert not torch.equal(new[0].weight, before["0.weight"])
    assert new[1].num_batches_tracked == 0
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in before.items())

    class Token(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.zeros(1))

    with pytest.raises(ConfigError, match=r"0 \(Token\) has no reset_parameters"):
        untrained_copy(nn.Sequential(Token()))


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_an_untrained_copy_keeps_nothing_without_a_word():
    """`weight_norm` makes a weight of two parameters that `reset_parameters` does not reach; a norm may have none at all."""
    normed = nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 3)))
    with torch.no_grad():  # without a graph, or torch does not copy it
        normed(torch.zeros(1, 3))
    with pytest.raises(ConfigError, match=r"0 \(Linear\) keeps weight_g in its reset_parameters"):
        untrained_copy(normed)
    norm = nn.Sequential(nn.Conv2d(1, 2, 1), nn.InstanceNorm2d(2, track_running_stats=True))
    norm(torch.randn(8, 1, 4, 4) + 5)
    assert untrained_copy(norm)[1].running_mean.tolist() == [0, 0]
    assert norm[1].running_mean.abs().min() > 0


def test_training_and_watching(make_data):
    model, data = untrained(), make_data()
    with quiet():
        trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, max_epochs=2)
        trainer.fit(model, datamodule=data)
        metrics = dict(trainer.callback_metrics)
        trainer.test(model, datamodule=data, verbose=False)
    metrics.update(trainer.callback_metrics)
    for name in ("unseen", "test"):
        right = torch.cat([model(b.input).argmax(1) == b.target for b in data.evaluation_loader(name)])
        assert metrics[f"{name}/acc"].item() == pytest.approx(100 * float(right.float().mean()))


def test_the_loss_is_cross_entropy_with_smoothing():
    class Alone:
        log_every_n_steps, world_size = 5, 1

    model = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), label_smoothing=0.1)
    model._trainer = Alone()
    from lightning_unlearn.data.batch import Batch

    batch = Batch(torch.randn(6, 1, 8, 8), torch.arange(6), torch.arange(6))
    expected = F.cross_entropy(model(batch.input), batch.target, label_smoothing=0.1)
    torch.testing.assert_close(model.training_step(batch, 1), expected)


def test_the_default_optimiser():
    defaults = default_optimizer([nn.Parameter(torch.zeros(1))]).defaults
    assert (defaults["lr"], defaults["momentum"], defaults["weight_decay"]) == (0.1, 0.9, 5e-4)


def test_a_network_that_does_not_know_its_shapes_yet_is_refused():
    with pytest.raises(CheckpointError, match=r"Sequential has parameters whose shape is not known yet: 1\.weight, 1\.bias\."):
        Classifier(nn.Sequential(nn.Flatten(), nn.LazyLinear(10)))
