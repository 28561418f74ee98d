"""B8: K models at once against one after another: the fits that the bank runs, loader, optimiser and Lightning included."""

import torch
from bench_loop import _data
from lightning.pytorch import seed_everything
from timing import medians, show
from torch.optim import SGD

from lightning_unlearn.bank.together import find_way, fit_together
from lightning_unlearn.classifier import Classifier
from lightning_unlearn.training import fit_quietly

ARGUMENTS = {"accelerator": "cpu"}


def _sgd(parameters):
    return SGD(parameters, lr=0.1, momentum=0.9, weight_decay=5e-4)


def _build(seed, network, channels, size):
    seed_everything(seed, verbose=False)
    return Classifier(network, 10, channels, image_size=size, optimizer=_sgd)


def ratio(network, count, data, epochs):
    """Seconds of K fits over those of K models trained as the bank trains them; and how it does."""
    channels, size = data.in_chans, data.image_size

    def models(seeds):
        return [_build(seed, network, channels, size) for seed in seeds]

    way = find_way(models(range(count)), data, ARGUMENTS)
    # A few of the single fits are enough: each takes as long as the others.
    few = min(count, 4)

    def alone():
        for model in models(range(few)):
            fit_quietly(model, data, "train", epochs, ARGUMENTS)

    def together():
        for begin in range(0, count, way.size):
            seeds = range(begin, min(begin + way.size, count))
            fit_together(models(seeds), data, "train", seeds, epochs, ARGUMENTS, way.how)

    # One after another in place of an ensemble is the very same work.
    times = medians({"alone": alone, "together": alone if way.size == 1 else together})
    per_model = times["alone"] / few / (times["together"] / (few if way.size == 1 else count))
    return f"{per_model:.2f} ({way.how}, {way.size} at once)"


def run():
    torch.set_num_threads(1)
    digits = _data(8, 1, 1200)
    digits.serve("train", batch_size=64)
    images = _data(32, 3, 256)
    images.serve("train", batch_size=64)
    return {
        "B8 MLP, K=64": ratio("MLP", 64, digits, 2),
        "B8 CNN on 8x8, K=32": ratio("SmallCNN", 32, digits, 2),
        "B8 ResNet-8 on 32x32, K=8": ratio("ResNet", 8, images, 1),
    }


if __name__ == "__main__":
    show(run())
