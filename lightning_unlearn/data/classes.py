"""Classes by label or name, and the samples that they have."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_unlearn.data.request import nearest
from lightning_unlearn.data.vision import Samples
from lightning_unlearn.exceptions import DataError, NothingKnownError

__all__ = ["class_indices", "listed_classes", "of_classes"]


def class_indices(classes: Sequence[int | str], class_names: Sequence[str]) -> list[int]:
    """Labels of classes that are given by label or name.

    Args:
        classes: Labels (integers) or names (texts).
        class_names: Names of all classes, in the order of the labels.

    Returns:
        Labels, in the given order.

    Raises:
        DataError: A label is out of range or the name of another class, a name is unknown, or a class is given twice.
    """
    labels: list[int] = []
    for given in classes:
        if isinstance(given, bool) or not isinstance(given, int | str):
            raise DataError(f"{given!r} is no class; needed: labels 0 to {len(class_names) - 1}, or names.")
        if isinstance(given, int):
            _check_label(given, class_names)
            label = given
        elif given in class_names:
            label = list(class_names).index(given)
        else:
            shown = ", ".join(class_names[:10]) + (" ..." if len(class_names) > 10 else "")
            raise DataError(f"There is no class {given!r}; the classes are {shown}.{nearest(given, class_names)}")
        if label in labels:
            raise DataError(f"Class {given!r} is given twice; name each class once.")
        labels.append(label)
    return labels


def _check_label(label: int, class_names: Sequence[str]) -> None:
    """Refuse what is no label, or might as well be the name of another class."""
    name, names = str(label), list(class_names)
    if not 0 <= label < len(names):
        by_name = f"the name in quotes: \"['{name}']\"" if name in names else "a name"
        raise DataError(f"Class {label} is out of range; needed: 0 to {len(names) - 1}, or {by_name}.")
    if name in names and names[label] != name:
        raise DataError(
            f"Class {label} may be that of the label {label}, named {names[label]!r}, or that of the name {name!r}, with the "
            f"label {names.index(name)}. Give one of the names in quotes: \"['{names[label]}']\" or \"['{name}']\"."
        )


def of_classes(
    samples: Samples,
    candidates: Tensor,
    classes: Sequence[int | str],
    class_names: Sequence[str],
    gone: Sequence[str] = (),
    caution: str = "",
) -> Tensor:
    """Samples of some classes.

    Args:
        samples: The training part of the data.
        candidates: Indices to choose from, (N,), int64, sorted.
        classes: Labels or names.
        class_names: Names of all classes, in the order of the labels.
        gone: Keys of further samples of these classes, which are no longer there.
        caution: What an error has to say besides.

    Returns:
        Those of the candidates that are of these classes.

    Raises:
        NothingKnownError: None is; it holds the keys of samples of these classes that are no candidates.
        DataError: One of the classes has none.
    """
    targets = samples.targets[candidates]
    labels = class_indices(classes, class_names)
    chosen = torch.isin(targets, torch.tensor(labels))
    others = [samples.keys[i] for i in torch.isin(samples.targets, torch.tensor(labels)).nonzero().flatten().tolist()]
    if not bool(chosen.any()) and (others := [*others, *gone]):
        raise NothingKnownError(
            f"No training sample is of class {' or '.join(map(repr, classes))}: {len(others)} are known, but they are unseen, "
            "or an earlier request removed them. There is nothing to forget.",
            others,
            caution,
        )
    for given, label in zip(classes, labels, strict=True):
        if not bool((targets == label).any()):
            raise DataError(f"No training sample is of class {given!r}; there is nothing to forget. Choose another class.")
    return candidates[chosen]


def listed_classes(classes: Sequence[int | str]) -> str:
    """Classes in words.

    Args:
        classes: Labels or names.

    Returns:
        Such as `classes 3, cat`.
    """
    return f"class{'es' if len(classes) > 1 else ''} {', '.join(map(str, classes))}"
