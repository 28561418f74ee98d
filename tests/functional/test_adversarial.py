import pytest
import torch

from lightning_unlearn.functional.adversarial import nearest_adversarial, pgd_l2


def linear(scale=1.0, size=4, seed=0):
    """Two classes; the margin of class 1 is w x + b, and the nearest point of the other class lies along w."""
    w = torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    b = -float(w.sum()) / 2

    def forward(x):
        z = scale * ((x[:, 0] * w.to(x)).sum((1, 2)) + b)
        return torch.stack([torch.zeros_like(z), z], 1)

    return forward, w


def inner(n=6, size=4, dtype=torch.float64):
    """Images far from the ends of 0 ... 1, so that the box plays no part."""
    return 0.4 + 0.2 * torch.rand(n, 1, size, size, dtype=dtype, generator=torch.Generator().manual_seed(1))


def test_the_way_is_straight_where_the_network_is_linear_and_ends_behind_the_boundary():
    forward, w = linear()
    x = inner()
    y, distance = forward(x).argmax(1), forward(x)[:, 1].abs() / w.norm()
    # Up to the ball's end where it does not reach the boundary, else the first step behind it and no further.
    epsilon = distance * torch.tensor([0.5, 0.9, 1.05, 1.5, 2.0, 6.0], dtype=torch.float64)
    found = pgd_l2(forward, x, y, epsilon, 0.1 * epsilon, 50)
    steps = (distance / (0.1 * epsilon)).ceil().clamp(max=10)
    sign = torch.where(y == 0, 1.0, -1.0).view(-1, 1, 1, 1)
    torch.testing.assert_close(found, x + sign * (steps * 0.1 * epsilon).view(-1, 1, 1, 1) * w / w.norm())
    assert steps.tolist() == [10, 10, 10, 7, 5, 2]


def test_an_image_with_another_label_takes_one_step():
    forward, w = linear()
    x = inner()
    y = 1 - forward(x).argmax(1)
    found = nearest_adversarial(forward, x, y, epsilon=0.01)
    sign = torch.where(y == 0, 1.0, -1.0).view(-1, 1, 1, 1)
    torch.testing.assert_close(found.images, x + sign * 0.001 * w / w.norm())
    assert torch.equal(found.labels, 1 - y)


def test_the_radius_is_the_first_doubling_beyond_the_boundary():
    forward, w = linear()
    x = inner(40)
    y = forward(x).argmax(1)
    distance = forward(x)[:, 1].abs() / w.norm()
    found = nearest_adversarial(forward, x, y, epsilon=0.004)
    expected = 0.004 * 2 ** (distance / 0.004).log2().ceil().clamp(min=0)
    assert len(expected.unique()) >= 3
    torch.testing.assert_close(found.epsilon, expected)
    assert found.found.all()
    assert torch.equal(found.labels, 1 - y)
    assert torch.equal(forward(found.images).argmax(1), found.labels)


def test_examples_stay_in_the_ball_and_among_images():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 32), torch.nn.Tanh(), torch.nn.Linear(32, 5)).double()
    x = torch.rand(30, 1, 4, 4, dtype=torch.float64).round(decimals=1)
    y = network(x).argmax(1)
    found = nearest_adversarial(network, x, y)
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    assert ((found.images - x).flatten(1).norm(dim=1) <= found.epsilon * (1 + 1e-9)).all()
    assert (found.labels != y).all()
    # Smaller balls had none, by the same attack.
    below = found.found & (found.epsilon > 0.04)
    half = found.epsilon[below] / 2
    assert below.any()
    assert torch.equal(network(pgd_l2(network, x[below], y[below], half, 0.1 * half, 50)).argmax(1), y[below])
    # Each image's example depends on it alone.
    alone = nearest_adversarial(network, x[3:4], y[3:4])
    torch.testing.assert_close(alone.images[0], found.images[3])


def test_a_network_that_is_sure_has_a_gradient_too():
    forward, _ = linear(scale=1e4)
    x = inner(dtype=torch.float32)
    y = forward(x).argmax(1)
    images = x.clone().requires_grad_()
    torch.nn.functional.cross_entropy(forward(images), y).backward()
    assert not images.grad.any()  # cross-entropy has none
    assert nearest_adversarial(forward, x, y).found.all()


def test_where_no_radius_helps_the_likeliest_wrong_label_is_given():
    images = inner(2).float()
    constant = torch.tensor([3.0, 1.0, 2.0])
    found = nearest_adversarial(lambda x: 0 * x.sum((1, 2, 3))[:, None] + constant, images, torch.tensor([0, 0]))
    assert found.labels.tolist() == [2, 2]
    assert not found.found.any()
    assert (found.epsilon >= 4).all()  # the diagonal of all images of 16 pixels


def test_no_images_and_no_radius(trained):
    empty = nearest_adversarial(lambda x: x.flatten(1)[:, :2], torch.empty(0, 1, 4, 4), torch.empty(0, dtype=torch.int64))
    assert empty.images.shape == (0, 1, 4, 4)
    with pytest.raises(ValueError, match="epsilon is 0"):
        nearest_adversarial(lambda x: x, torch.empty(0, 1, 4, 4), torch.empty(0, dtype=torch.int64), epsilon=0)


def test_some_classes_are_no_wrong_label():
    """Of four classes the last two are none, although the nearest boundaries are theirs."""
    w = torch.tensor([[0.0, 0.0], [4.0, 0.0], [8.0, 0.0], [0.0, 8.0]], dtype=torch.float64)
    b = torch.tensor([0.0, -3.0, -5.0, -5.0], dtype=torch.float64)

    def forward(x):
        return x.flatten(1) @ w.T + b

    x = torch.tensor([[0.4, 0.4], [0.95, 0.1]], dtype=torch.float64).view(2, 1, 1, 2)
    labels = forward(x).argmax(1)
    assert labels.tolist() == [0, 2]
    assert nearest_adversarial(forward, x, labels).labels.tolist() == [2, 0]
    never = torch.tensor([2, 3])
    found = nearest_adversarial(forward, x, labels, never=never)
    assert (found.labels.tolist(), found.found.tolist()) == ([1, 0], [True, True])
    assert forward(found.images[:1])[:, :2].argmax(1) == 1
