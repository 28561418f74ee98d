"""Training the end of a network on features of its frozen beginning, computed once."""

import logging
import math
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from lightning_unlearn.data.batch import Batch, joined
from lightning_unlearn.data.sample_table import SampleTable
from lightning_unlearn.data.split_data import Part
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.frozen_beginning import FrozenBeginning, features_too_large
from lightning_unlearn.functional.cut import Cut, cut
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["CachedStage"]

log = logging.getLogger(__name__)


class CachedStage(UnlearningStage):
    """A stage that can run on cached features where everything before the trained parameters is frozen.

    The frozen part runs in eval mode, so its output for an image never changes: it is computed once, unless an earlier stage of
    the chain has left it, and kept on the device, up to 4 GiB. Objectives call `logits` in place of the classifier.

    Class attributes:
        asks_teacher: Whether a `Teacher` answers to its batches, for which it needs augmented images themselves.

    Args:
        cache: True: an error where the conditions do not hold; False: never; None: where they hold.
        copies: Of augmented images, those of so many passes are kept, and further passes see them again in turn; with as many
            as there are passes, the result is that without a cache. 0: features of augmented images are not cached.
        **kwargs: See `UnlearningStage`.
    """

    asks_teacher: ClassVar[bool] = False

    def __init__(self, cache: bool | None = None, copies: int = 0, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]  # typed in the base class
        if copies < 0:
            raise ChainError(f"{type(self).__name__}: copies is {copies}; needed: 0 (augmented images are not cached) or more.")
        self.cache, self.copies = cache, copies
        self.cached: Cut | None = None
        self._features: list[SampleTable] = []

    def cached_parts(self) -> dict[Part, Tensor]:
        """Samples whose features the stage needs.

        Returns:
            Sample indices by part, (N,) each, sorted, int64: of parts of one set.
        """
        parts: tuple[Part, ...] = (self.view,) if self.view in ("forget", "retain", "unseen") else ("forget", "retain")
        return {part: self.data.part(part)[1] for part in parts}

    def on_fit_start(self) -> None:
        """Compute the features, where the conditions hold."""
        found = self._find_cut()
        self.work.backward_share = 1.0 if found is None else found.share
        reason = self._why_not(found)
        if reason is None:
            self.cached = found
            self._fill()
            return
        self.artifacts.drop_features()
        if self.cache:
            raise ChainError(f"{type(self).__name__}: features cannot be cached: {reason}. Set cache to null or false.")
        if found is not None and self.cache is None:
            log.info("%s: features are not cached: %s.", type(self).__name__, reason)

    def too_large_together(self, models: int) -> str | None:
        """Why models that could each be trained on cached features cannot be at once.

        Args:
            models: Their number.

        Returns:
            How large the features are; None where they fit, or none would be kept.
        """
        found = self._find_cut()
        return None if found is None or self._why_not(found) is not None else self._too_large(found, models)

    def release(self) -> None:
        """See `UnlearningStage.release`; the features go too. A later stage finds them in the artifacts."""
        self.cached, self._features = None, []
        super().release()

    def logits(self, *batches: Batch) -> Tensor:
        """See `UnlearningStage.logits`; from cached features where there are any."""
        if self.cached is None:
            return self.run(self.classifier, joined([batch.input for batch in batches]))
        return self.run(self.cached.tail, joined([self.features(batch.index, batch.epoch) for batch in batches]))

    def uncounted(self) -> nn.Module:
        """See `UnlearningStage.uncounted`; the end of the classifier where features are cached."""
        classifier = super().uncounted()
        if self.cached is None:
            return classifier
        self._watched_tail.remove()
        return self.cached.tail

    def features(self, index: Tensor, epoch: int = 0) -> Tensor:
        """Cached features of samples.

        Args:
            index: Sample indices, (B,), int64.
            epoch: The pass that they are of; counts where images are augmented.

        Returns:
            (B, ...).
        """
        return self._features[epoch % len(self._features)][index]

    def run(self, module: nn.Module, x: Tensor) -> Tensor:
        """Call the classifier or its end; a stage that changes weights on the way overrides this.

        Args:
            module: The classifier, or its end.
            x: Images or features.

        Returns:
            Logits (B, K).
        """
        logits: Tensor = module(x)
        return logits

    def _find_cut(self) -> Cut | None:
        if self.max_epochs == 0 or len(self.selected) == len(list(self.classifier.parameters())):
            return None
        return cut(self.classifier, self.selected, self.example_image())

    def _why_not(self, found: Cut | None) -> str | None:
        if self.cache is False:
            return "cache is false"
        if self.data.augmentation is not None and self.copies == 0:
            return "images are augmented, and copies is 0"
        if self.data.augmentation is not None and self.asks_teacher:
            return "images are augmented, and its teacher looks at them"
        if found is None:
            return "no single tensor leads from a frozen beginning to the trained parameters"
        if any(m.training for m in found.prefix.modules() if isinstance(m, _DropoutNd | _NormBase)):
            return "dropout or a norm in train mode stands before the trained parameters"
        return self._too_large(found)

    def _too_large(self, found: Cut, models: int = 1) -> str | None:
        samples = sum(self._passes(part) * len(index) for part, index in self.cached_parts().items())
        return features_too_large(found, self, samples * models)

    def _passes(self, part: Part) -> int:
        """Of how many passes over a part the features are kept."""
        if self.data.augmentation is None:
            return 1
        if self.view == "both" and part == "forget":
            return self.copies  # passes over it are shorter than epochs, and more
        epochs, steps = self.length(self.data)
        batches = steps * self.trainer.accumulate_grad_batches
        return min(self.copies, epochs if steps < 0 else math.ceil(batches / len(self.data.plan)))

    def _fill(self) -> None:
        assert self.cached is not None
        beginning = FrozenBeginning(self.cached, self)
        self._watched_tail = beginning.watched_tail
        parts = self.cached_parts()
        for epoch in range(max(map(self._passes, parts))):
            as_in = None if self.data.augmentation is None else epoch
            tables = [beginning.of(part, index, as_in) for part, index in parts.items() if epoch < self._passes(part)]
            if any(table is not tables[0] for table in tables):
                raise ChainError(f"{type(self).__name__}: cached_parts gives {[*parts]}, which are not parts of one set.")
            self._features.append(tables[0])
        self.data.skip_images()
