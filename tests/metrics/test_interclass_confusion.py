import math

import pytest
import torch

from lightning_unlearn.exceptions import DataError
from lightning_unlearn.metrics.interclass_confusion import InterclassConfusion, interclass_confusion
from lightning_unlearn.outputs import PartOutputs


def predicting(predictions, targets, k=5):
    return PartOutputs(torch.eye(k)[torch.tensor(predictions)], torch.tensor(targets), torch.arange(len(targets)))


def test_only_errors_between_the_two_classes_count():
    # Of classes 1 and 3: right, swapped, swapped, wrong in another way; class 0 taken for 3 does not matter.
    part = predicting([1, 3, 1, 4, 3], [1, 1, 3, 3, 0])
    assert interclass_confusion(part, (1, 3)) == 50
    assert interclass_confusion(part, (3, 1)) == 50
    assert interclass_confusion(part, (0, 3)) == pytest.approx(100 / 3)
    assert interclass_confusion(part, (0, 1)) == 0


def test_the_logged_value_is_the_same(make_part):
    part = make_part(200)
    metric = InterclassConfusion((1, 3))
    for rows in torch.arange(200).split(17):
        metric.update(part.logits[rows], part.targets[rows], part.index[rows])
    assert metric.compute().item() == pytest.approx(interclass_confusion(part, (1, 3)))
    assert 0 < metric.compute().item() < 100
    assert metric.higher_is_better is None


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_no_sample_of_the_classes(make_part):
    part = make_part(50)
    rest = part.select(part.targets > 1)
    with pytest.raises(DataError, match="No sample"):
        interclass_confusion(rest, (0, 1))
    assert math.isnan(InterclassConfusion((0, 1)).compute().item())


def test_the_classes_must_differ(make_part):
    with pytest.raises(DataError, match="two different"):
        interclass_confusion(make_part(), (1, 1))
    with pytest.raises(DataError, match="two different"):
        InterclassConfusion((2, 2))
