import torch
from torch import fx, nn

from lightning_unlearn.work import Work


def test_images_are_counted_forward_and_backward():
    network, work = nn.Linear(3, 2), Work()
    handle = work.watch(network)
    network(torch.zeros(5, 3))
    with torch.no_grad():
        network(torch.zeros(7, 3))
    assert (work.forward, work.backward, work.total) == (12, 5, 22)
    handle.remove()
    network(torch.zeros(5, 3))
    assert work.total == 22


def test_a_share_and_a_frozen_network():
    network, work = nn.Linear(3, 2).requires_grad_(False), Work()
    work.watch(network, share=0.25)
    network(torch.zeros(8, 3))
    assert (work.forward, work.backward) == (2, 0)
    network(torch.zeros(8, 3, requires_grad=True))
    assert (work.forward, work.backward) == (4, 2)


def test_recording_a_network_is_no_work():
    network, work = nn.Sequential(nn.Linear(3, 2)), Work()
    work.watch(network[0])
    fx.symbolic_trace(network)
    assert work.total == 0
