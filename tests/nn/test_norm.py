"""Normalisation: PyTorch's own as the oracle, and statistics of one task at a time."""

import pytest
import torch
from torch import nn

from kshot.errors import ConfigError
from kshot.nn import BatchNorm, convert_batch_norm
from kshot.nn.norm import Groups, batch_statistics, given_statistics, running_statistics


def pair(**options):
    ours, theirs = BatchNorm(3, **options), nn.BatchNorm2d(3, **options)
    with torch.no_grad():
        for module in (ours, theirs):
            module.weight.copy_(torch.tensor([1.0, 2.0, 0.5]))
            module.bias.copy_(torch.tensor([0.0, -1.0, 3.0]))
    return ours, theirs


def images(rows=6):
    return torch.randn(rows, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 + 1


def test_outside_any_context_it_is_pytorchs():
    ours, theirs = pair(momentum=0.3)
    x = images()
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)
    assert torch.allclose(ours.running_mean, theirs.running_mean)
    assert torch.allclose(ours.running_var, theirs.running_var)
    assert torch.allclose(ours.eval()(x), theirs.eval()(x), atol=1e-6)


def test_each_group_has_its_own_statistics():
    """A meta-batch equals a loop over its tasks, also where their rows are interleaved."""
    ours, _ = pair()
    x, ids = images(), torch.tensor([0, 1, 0, 1, 1, 1])
    with batch_statistics(Groups(ids, 2)):
        together = ours(x)
    for group in (0, 1):
        with batch_statistics():
            alone = ours(x[ids == group])
        assert torch.allclose(together[ids == group], alone, atol=1e-5)


def test_running_statistics_move_by_the_mean_over_groups():
    ours, theirs = pair()
    x = images()
    with batch_statistics(Groups(torch.tensor([0, 0, 0, 1, 1, 1]), 2), update=True):
        ours(x)
    theirs(x[:3])
    first = theirs.running_mean.clone(), theirs.running_var.clone()
    theirs.reset_running_stats()
    theirs(x[3:])
    assert torch.allclose(ours.running_mean, (first[0] + theirs.running_mean) / 2, atol=1e-6)
    assert torch.allclose(ours.running_var, (first[1] + theirs.running_var) / 2, atol=1e-5)


def test_contexts_leave_running_statistics_alone_unless_asked():
    ours, _ = pair()
    before = ours.running_mean.clone()
    with batch_statistics():
        ours(images())
    with running_statistics():
        ours(images())
    assert torch.equal(ours.running_mean, before)


def test_given_statistics_are_the_supports():
    ours, _ = pair()
    support, query = images(), images(2) + 5
    with batch_statistics(collect=True) as seen:
        ours(support)
    with given_statistics(seen):
        found = ours(query)
    mean = support.mean((0, 2, 3), keepdim=True)
    var = support.var((0, 2, 3), unbiased=False, keepdim=True)
    weight, bias = ours.weight.reshape(1, 3, 1, 1), ours.bias.reshape(1, 3, 1, 1)
    expected = (query - mean) / (var + ours.eps).sqrt() * weight + bias
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("affine", [True, False])
def test_conversion_keeps_weights_and_answers(affine):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, affine=affine))
    net(torch.randn(9, 4))
    x = torch.randn(5, 4)
    expected = net.eval()(x)
    names = list(net.state_dict())
    with pytest.warns(UserWarning, match="one task's"):
        assert convert_batch_norm(net) == ["1"]
    assert [n for n in names if "num_batches" not in n] == list(net.state_dict())
    assert torch.allclose(net(x), expected, atol=1e-6)
    assert convert_batch_norm(net) == []


def test_layers_that_normalise_in_their_own_way_are_refused():
    class WithActivation(nn.BatchNorm1d):
        def forward(self, x):
            return super().forward(x).relu()

    for layer in (WithActivation(3), nn.SyncBatchNorm(3)):
        with pytest.raises(ConfigError, match="in its own way"):
            convert_batch_norm(nn.Sequential(nn.Linear(4, 3), layer))


def test_pytorchs_weights_load_unchanged():
    theirs, ours = nn.BatchNorm2d(3), BatchNorm(3)
    theirs(images())
    ours.load_state_dict(theirs.state_dict())
    assert torch.equal(ours.running_mean, theirs.running_mean)


def test_a_layer_in_two_places_stays_one_layer():
    shared = nn.BatchNorm1d(3)
    net = nn.Sequential(nn.Linear(3, 3), shared, nn.Linear(3, 3), shared)
    with pytest.warns(UserWarning, match="2 BatchNorm"):
        assert convert_batch_norm(net) == ["1", "3"]
    assert net[1] is net[3]
    assert isinstance(net[1], BatchNorm)


def test_a_layer_without_running_statistics_is_refused():
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, track_running_stats=False))
    with pytest.raises(ConfigError, match="layer '1' keeps no running statistics"):
        convert_batch_norm(net)
