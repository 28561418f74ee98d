import pytest
import torch

from lightning_unlearn.exceptions import DataError
from lightning_unlearn.metrics.margins import label_log_probabilities, margins, stacked_margins
from lightning_unlearn.outputs import PartOutputs


def logits(*shape, seed=0):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_several_models_are_read_as_one_by_one():
    z, y = logits(4, 20, 5), torch.arange(20) % 5
    assert margins(z, y).shape == (4, 20)
    assert label_log_probabilities(z, y).shape == (4, 20)
    for m in range(4):
        p = z[m].double().softmax(1)[torch.arange(20), y]
        torch.testing.assert_close(margins(z, y)[m], p.logit())
        torch.testing.assert_close(label_log_probabilities(z, y)[m], p.log())
        assert margins(z[m], y).equal(margins(z, y)[m])
        assert label_log_probabilities(z[m], y).equal(label_log_probabilities(z, y)[m])


def test_float32_and_half_logits_give_float64_margins():
    # Confidences of all three are 1 in float32, and margins of half precision overflow at 65,504.
    z = torch.tensor([[30.0, 0.0, 0.0], [30.5, 0.0, 0.0], [31.0, 0.0, 0.0]])
    y = torch.zeros(3, dtype=torch.int64)
    assert len(z.softmax(1)[:, 0].unique()) == 1
    for kind in (torch.float32, torch.float16, torch.bfloat16):
        found = margins(z.to(kind), y)
        assert found.dtype == torch.float64
        assert len(found.unique()) == 3
    assert margins(torch.tensor([[60000.0, -60000.0]], dtype=torch.float16), y[:1]).item() == pytest.approx(120000, rel=1e-3)


def test_log_probabilities_are_never_above_zero_and_stay_finite():
    z = torch.tensor([[800.0, 0.0], [0.0, 800.0]])
    found = label_log_probabilities(z, torch.tensor([0, 0]))
    assert found.tolist() == [0, -800]


def test_outputs_of_several_models(make_part):
    parts = [make_part(20), make_part(20, gain=3.0)]
    found = stacked_margins(parts)
    assert found.shape == (2, 20)
    assert found[1].equal(parts[1].margins)
    with pytest.raises(DataError, match="same samples"):
        stacked_margins([parts[0], make_part(20, first=5)])
    with pytest.raises(DataError, match="at least one"):
        stacked_margins([])


def test_shapes_are_checked():
    y = torch.zeros(3, dtype=torch.int64)
    for bad in (logits(4, 5), logits(2, 4, 5), logits(3)):
        with pytest.raises(DataError, match="labels of shape"):
            margins(bad, y)
    assert PartOutputs(logits(3, 4), y, torch.arange(3)).margins.equal(margins(logits(3, 4), y))
