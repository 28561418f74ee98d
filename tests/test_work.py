import torch
from torch import fx, nn

from lightning_unlearn.work import Work


def test_images_are_counted_forward_and_backward():
    network, work = nn.Linear(3, 2), Work()
    handle = work.watch(network)
    network(torch.zeros(5, 3)).sum().backward()
    with torch.no_grad():
        network(torch.zeros(7, 3))
    assert (work.forward, work.backward, work.total) == (12, 5, 22)
    network(torch.zeros(2, 3))  # a gradient that nobody asks for costs nothing
    assert (work.forward, work.backward) == (14, 5)
    handle.remove()
    network(torch.zeros(5, 3)).sum().backward()
    assert (work.forward, work.backward) == (14, 5)


def test_every_backward_pass_counts():
    network, work = nn.Linear(3, 2), Work()
    work.watch(network)
    logits = network(torch.zeros(5, 3))
    for column in range(2):
        torch.autograd.grad(logits[:, column].sum(), network.weight, retain_graph=True)
    assert (work.forward, work.backward) == (5, 10)


def test_a_share_and_a_frozen_network():
    network, work = nn.Linear(3, 2).requires_grad_(False), Work()
    work.watch(network, share=0.25)
    network(torch.zeros(8, 3))
    assert (work.forward, work.backward) == (2, 0)
    network(torch.zeros(8, 3, requires_grad=True)).sum().backward()
    assert (work.forward, work.backward) == (4, 2)


def test_recording_a_network_is_no_work():
    network, work = nn.Sequential(nn.Linear(3, 2)), Work()
    work.watch(network[0])
    fx.symbolic_trace(network)
    assert work.total == 0
