"""Some classes of a data set: two digits of MNIST, for instance."""

from dataclasses import replace

import torch
from torch import Tensor

from lightning_unlearn.data.classes import class_indices
from lightning_unlearn.data.hashing import order
from lightning_unlearn.data.reading import pick
from lightning_unlearn.data.vision import Samples, VisionData
from lightning_unlearn.exceptions import DataError

__all__ = ["SomeClasses"]


class SomeClasses(VisionData):
    """Some classes of a data set, with labels counted anew from 0 in the given order.

    Args:
        dataset: The data set.
        classes: Labels (counted from 0) or names, at least two; a name that is a number in quotes, such as "['10', '2']".
        per_class: Training samples of each class that are kept, at random and always the same; None: all.

    Raises:
        DataError: There are fewer than two classes, or fewer samples of one than asked for.
    """

    def __init__(self, dataset: VisionData, classes: list[str | int], per_class: int | None = None) -> None:
        labels = class_indices(classes, dataset.classes)
        if len(labels) < 2:
            raise DataError(f"classes is {classes}; needed: at least two, to tell apart.")
        names = [dataset.classes[label] for label in labels]
        train = _of(dataset.train, labels, names, per_class, dataset.num_classes)
        test = _of(dataset.test, labels, names, None, dataset.num_classes)
        name = f"{dataset.name} {'/'.join(names)}"
        super().__init__(name, train, test, names, dataset.mean, dataset.std, dataset.given)
        self.place = dataset.place
        self.measures = dataset.measures


def _of(samples: Samples, labels: list[int], names: list[str], per_class: int | None, classes: int) -> Samples:
    chosen: list[Tensor] = []
    new = torch.full((classes,), -1)
    for position, (label, name) in enumerate(zip(labels, names, strict=True)):
        members = (samples.targets == label).nonzero().flatten()
        if per_class is not None and (isinstance(per_class, bool) or not 1 <= per_class <= len(members)):
            raise DataError(
                f"per_class is {per_class}, and there are {len(members)} training samples of class {name!r}; needed: 1 to that "
                "many, or none for all of them."
            )
        chosen.append(members[order(samples.hashes[members], 0, "per class")[:per_class]])
        new[label] = position
    kept = pick(samples, torch.cat(chosen).sort().values)
    truth = None if kept.true_targets is None else new[kept.true_targets]
    if truth is not None and bool((truth < 0).any()):
        truth = None  # of another class than those that are left
    folders = [samples.folders[label] for label in labels] if samples.folders else ()
    return replace(kept, targets=new[kept.targets], true_targets=truth, folders=folders)
