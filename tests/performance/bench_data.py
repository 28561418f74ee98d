"""B1: resident batches against torchvision transforms and a DataLoader; B10: passes over the data to evaluate a model."""

import torch
from PIL import Image
from timing import medians, show
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from lightning_unlearn.data.augment import Augmentation
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.forget import RandomFraction
from lightning_unlearn.data.reading import resident_samples
from lightning_unlearn.data.vision import VisionData
from lightning_unlearn.evaluation.collecting import collect_outputs
from lightning_unlearn.networks import SmallCNN
from lightning_unlearn.trainer import UnlearningTrainer
from lightning_unlearn.work import Work


class _PerSample(Dataset):
    """The usual way: an image at a time, through PIL."""

    def __init__(self, images, targets):
        self.images, self.targets = images, targets
        self.transform = transforms.Compose([
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.5,) * 3, (0.25,) * 3),
        ])

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.transform(Image.fromarray(self.images[i])), int(self.targets[i])


def _data(n=2000):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 32, 32, 3), dtype=torch.uint8, generator=generator).numpy()
    targets = torch.randint(0, 10, (n,), generator=generator).numpy()
    samples = resident_samples(images, targets, "noise")
    vision = VisionData("noise", samples, samples, [str(i) for i in range(10)], (0.5,) * 3, (0.25,) * 3)
    return images, targets, vision


def run():
    images, targets, vision = _data()
    data = UnlearningDataModule(vision, unseen=1, batch_size=128, augmentation=Augmentation(4, True))
    resident = data.train_dataloader()
    usual = DataLoader(_PerSample(images, targets), batch_size=128, shuffle=True, num_workers=0)

    def ours():
        for _ in resident:
            pass

    def theirs():
        for _ in usual:
            pass

    b1 = medians({"resident": ours, "usual": theirs})
    trainer = UnlearningTrainer(accelerator="cpu", devices=1, logger=False, enable_progress_bar=False)
    data = UnlearningDataModule(vision, RandomFraction(0.1), unseen=100)
    model, work = SmallCNN(10, 3, 32), Work()
    handle = work.watch(model)
    collect_outputs(trainer.fresh, model, data, ["retain"])
    handle.remove()
    return {
        "B1 resident vs usual": round(b1["usual"] / b1["resident"], 1),
        "B10 passes over retain": work.forward / len(data.part("retain")[1]),
    }


if __name__ == "__main__":
    show(run())
