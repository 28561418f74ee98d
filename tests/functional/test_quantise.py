import copy

import pytest
import safetensors.torch
import torch
from helpers import untrained
from torch import nn

from lightning_unlearn.functional.quantise import dequantise_weights, quantise_weights


@pytest.mark.parametrize("shape", [(5, 7), (6, 3, 3, 3), (4, 2, 5)])
def test_rounding_is_that_of_each_channel_by_itself(shape):
    torch.manual_seed(0)
    weight = torch.randn(shape, dtype=torch.float64) * torch.logspace(-3, 2, shape[0], dtype=torch.float64).view(
        -1, *[1] * (len(shape) - 1)
    )
    found = quantise_weights({"weight": weight})
    assert found["weight"].dtype == torch.int8
    restored = dequantise_weights(found)["weight"]
    for channel, row in enumerate(weight):
        scale = max(abs(float(w)) for w in row.flatten()) / 127
        assert float(found["weight.scale"][channel]) == pytest.approx(scale, rel=1e-15)
        expected = torch.tensor([round(float(w) / scale) for w in row.flatten()]).view(row.shape)
        assert torch.equal(found["weight"][channel].long(), expected)
        assert float((restored[channel] - row).abs().max()) <= scale / 2 * (1 + 1e-12)
    # The largest weight of a channel is kept, by its sign too.
    flat, back = weight.flatten(1), restored.flatten(1)
    at = flat.abs().argmax(1, keepdim=True)
    torch.testing.assert_close(back.gather(1, at), flat.gather(1, at), rtol=1e-14, atol=0)


def test_the_dequantised_weights_are_a_fixed_point():
    torch.manual_seed(0)
    once = dequantise_weights(quantise_weights({"weight": torch.randn(8, 9)}))
    twice = dequantise_weights(quantise_weights(once))
    torch.testing.assert_close(twice, once, rtol=1e-6, atol=0)


def test_what_is_no_matrix_or_kernel_stays_as_it_is():
    state = {
        "norm.weight": torch.randn(4),
        "norm.num_batches_tracked": torch.tensor(7),
        "fc.bias": torch.randn(4),
        "pos_embed": torch.randn(1, 5, 4),
        "table.weight": torch.ones(2, 2, dtype=torch.int64),
        "empty.weight": torch.empty(0, 3),
        # A parameter that happens to be called like a scale.
        "layer.scale": torch.randn(3),
    }
    found = quantise_weights(state)
    assert list(found) == list(state)
    assert all(found[name] is value for name, value in state.items())
    assert dequantise_weights(found) == found


def test_zero_tiny_and_half_precision_channels():
    weight = torch.tensor([[0.0, 0.0], [1e-45, -1e-45], [2.0, -1.0]])
    assert dequantise_weights(quantise_weights({"weight": weight}))["weight"].tolist()[:2] == [[0, 0], [0, 0]]
    half = quantise_weights({"weight": weight[2:].half()})
    assert half["weight.scale"].dtype == torch.float32
    assert half["weight"].tolist() == [[127, -64]]  # -63.5, to the even neighbour


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_broken_weights_are_refused(bad):
    with pytest.raises(ValueError, match=r"conv\.weight has NaN or infinite"):
        quantise_weights({"conv.weight": torch.tensor([[1.0, bad]])})


def test_a_network_survives_the_file_and_stays_close(trained, tmp_path):
    state = trained.state_dict()
    safetensors.torch.save_file(quantise_weights(state), tmp_path / "int8.safetensors")
    restored = dequantise_weights(safetensors.torch.load_file(tmp_path / "int8.safetensors"))
    assert sorted(restored) == sorted(state)
    rounded = copy.deepcopy(trained)
    rounded.load_state_dict(restored)
    x = torch.randn(16, 1, 8, 8)
    with torch.no_grad():
        difference = (rounded(x) - trained(x)).norm() / trained(x).norm()
    assert 0 < float(difference) < 0.03
    assert all(torch.equal(value, state[name]) for name, value in trained.state_dict().items())


def test_attention_and_transposed_layers_keep_their_shapes():
    network = nn.Sequential(nn.MultiheadAttention(8, 2), nn.ConvTranspose2d(3, 4, 2), untrained("ResNet"))
    found = quantise_weights(network.state_dict())
    assert found["0.in_proj_weight"].dtype == torch.int8
    assert {n: v.shape for n, v in dequantise_weights(found).items()} == {n: v.shape for n, v in network.state_dict().items()}
