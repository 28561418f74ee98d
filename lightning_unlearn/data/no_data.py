"""A data set that is not there, for methods that need none."""

import torch

from lightning_unlearn.data.saved_split import class_key
from lightning_unlearn.data.vision import Samples, VisionData
from lightning_unlearn.exceptions import DataError

__all__ = ["NoData"]


class NoData(VisionData):
    """Says which classes and which images a model knows, where nobody may read data any more.

    With `WholeClasses` it is a request for methods that work from the checkpoint alone, such as `mnemonic`. Whatever would
    read an image is refused.

    Args:
        image_size: Height and width of the images.
        channels: Channels of the images.
        classes: Number of classes, or their names in the order of the labels.

    Raises:
        DataError: A number is below 1, or there are fewer than two classes.
    """

    has_images = False

    def __init__(self, image_size: int, channels: int = 3, classes: int | list[str] = 10) -> None:
        names = [str(i) for i in range(classes)] if isinstance(classes, int) else classes
        if min(image_size, channels) < 1 or len(names) < 2:
            raise DataError(
                f"NoData: image_size is {image_size}, channels {channels}, classes {classes}; needed: sizes of 1 or more "
                "and at least two classes."
            )
        # One blank image per class, so that rules can name classes; `has_images` keeps it from being read.
        blank = torch.zeros(1, channels, image_size, image_size, dtype=torch.uint8).expand(len(names), -1, -1, -1)
        samples = Samples(blank, torch.arange(len(names)), [class_key(label) for label in range(len(names))])
        super().__init__("no data", samples, samples, names, [0.0] * channels, [1.0] * channels)

    @property
    def input(self) -> str:
        """What a model is given, in one line."""
        return "none; no data are read"
