"""B2: a stage's fit, with its guards, logging and progress bar, against a loop by hand over the same batches."""

import contextlib
import copy
import io
import tempfile

import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger
from timing import medians, show
from torch.optim import SGD

from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.forget import RandomFraction
from lightning_unlearn.data.reading import resident_samples
from lightning_unlearn.data.vision import VisionData
from lightning_unlearn.networks import MLP, SmallCNN
from lightning_unlearn.stages.fine_tune import FineTune
from lightning_unlearn.trainer import UnlearningTrainer


def _sgd(parameters):
    return SGD(parameters, lr=0.01, momentum=0.9)


def _data(size, channels, n):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, size, size, channels), dtype=torch.uint8, generator=generator).numpy()
    targets = torch.randint(0, 10, (n,), generator=generator).numpy()
    samples = resident_samples(images, targets, "noise")
    vision = VisionData("noise", samples, samples, [str(i) for i in range(10)], (0.5,) * channels, (0.25,) * channels)
    return UnlearningDataModule(vision, RandomFraction(0.02), unseen=1, batch_size=128)


def ratio(network, data):
    """Seconds of the stage's fit over those of the loop."""
    folder = tempfile.mkdtemp()
    trainer = UnlearningTrainer(
        accelerator="cpu", devices=1, logger=CSVLogger(folder), callbacks=[TQDMProgressBar()], enable_progress_bar=True
    )

    def stage():
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            run_chain(trainer.fresh, copy.deepcopy(network), data, [FineTune(max_epochs=2, optimizer=_sgd, cache=False)])

    def loop():
        model = copy.deepcopy(network).train()
        optimizer = _sgd(model.parameters())
        for _ in range(2):
            data.serve("retain")
            for batch in data.train_dataloader():
                optimizer.zero_grad()
                F.cross_entropy(model(batch.input), batch.target).backward()
                optimizer.step()

    times = medians({"stage": stage, "loop": loop})
    return round(times["stage"] / times["loop"], 2)


def run():
    mlp = ratio(MLP(10, 1, 8, (64, 64)), _data(8, 1, 40_000))
    cnn = ratio(SmallCNN(10, 3, 32), _data(32, 3, 6_000))
    return {"B2 tiny MLP": mlp, "B2 small CNN": cnn}


if __name__ == "__main__":
    show(run())
