"""Transfer modules: neutral when added, exact when merged, gone when removed."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

from kshot.errors import ConfigError
from kshot.nn import BatchNorm, Conv4, ResNet12
from kshot.nn.adapters import (
    ADAPTERS,
    add_adapter,
    complete,
    freeze_all_but,
    merge_adapters,
    remove_adapters,
)

ADDED = ["scale_shift", "film", "lora", "bias"]


def attention():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return nn.Sequential(nn.Unflatten(1, (4, 8)), layer, nn.Flatten(), nn.Linear(32, 5))


NETWORKS = {
    "conv4": (lambda: Conv4(1, channels=6), (1, 28, 28)),
    "conv4 of MAML": (lambda: Conv4(1, channels=6, strided=True, norm_scale=False), (1, 28, 28)),
    "resnet12": (lambda: ResNet12(3, widths=(5, 6, 6, 6)), (3, 32, 32)),
    "plain": (lambda: nn.Sequential(nn.Linear(7, 5, bias=False), nn.ReLU(), nn.Linear(5, 4)), (7,)),
    "depthwise": (
        lambda: nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 6, 1), nn.Flatten()),
        (8, 5, 5),
    ),
    "attention": (attention, (32,)),
}


@pytest.fixture(params=list(NETWORKS))
def network(request):
    torch.manual_seed(0)
    build, shape = NETWORKS[request.param]
    net = build().eval()
    for parameter in net.parameters():  # no bias or factor that is neutral by chance
        nn.init.normal_(parameter, 0.3, 0.3)
    return net, torch.randn(3, *shape)


def move(net, names):
    """Give the named parameters other values."""
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name in names:
                parameter += 0.1 * torch.randn_like(parameter)


@pytest.mark.parametrize("adapter", ADDED)
def test_an_added_adapter_changes_nothing_until_it_moves(network, adapter):
    net, x = network
    before = net(x)
    names = add_adapter(net, adapter)
    torch.testing.assert_close(net(x), before)
    assert names
    assert set(names) <= {name for name, _ in net.named_parameters()}
    move(net, names)
    assert not torch.allclose(net(x), before)


@pytest.mark.parametrize("adapter", ADDED)
def test_a_merged_network_is_plain_and_does_the_same(network, adapter):
    net, x = network
    kinds, keys = [type(m) for m in net.modules()], set(net.state_dict())
    move(net, add_adapter(net, adapter))
    changed = net(x)
    merge_adapters(net)
    torch.testing.assert_close(net(x), changed)
    assert [type(m) for m in net.modules()] == kinds
    assert keys <= set(net.state_dict())


@pytest.mark.parametrize("adapter", ADDED)
def test_removing_an_adapter_gives_the_network_back_bit_for_bit(network, adapter):
    net, x = network
    was = {k: v.clone() for k, v in net.state_dict().items()}
    before = net(x)
    move(net, add_adapter(net, adapter))
    remove_adapters(copy.deepcopy(net))  # a copy knows as much
    remove_adapters(net)
    assert was.keys() == net.state_dict().keys()
    assert all(torch.equal(was[k], v) for k, v in net.state_dict().items())
    assert torch.equal(net(x), before)


def test_two_adapters_stand_on_one_another():
    torch.manual_seed(0)
    net, x = Conv4(1, channels=6).eval(), torch.randn(3, 1, 28, 28)
    slow = add_adapter(net, "scale_shift")
    fast = add_adapter(net, "lora", rank=2)
    assert not set(slow) & set(fast)
    move(net, [*slow, *fast])
    changed = net(x)
    merge_adapters(net)
    torch.testing.assert_close(net(x), changed)


def test_scale_shift_is_the_papers_formula():
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 5, 3, bias=True)
    plain = copy.deepcopy(layer)
    net = nn.Sequential(layer)
    scale, shift = add_adapter(net, "scale_shift")
    parameters = dict(net.named_parameters())
    assert parameters[scale].shape == (5, 3, 1, 1)
    phi1, phi2 = torch.rand(5, 3, 1, 1), torch.rand(5)
    x = torch.randn(2, 3, 8, 8)
    expected = nn.functional.conv2d(x, plain.weight * phi1, plain.bias + phi2)
    found = functional_call(net, {scale: phi1, shift: phi2}, (x,))
    torch.testing.assert_close(found, expected)


def test_film_is_a_factor_and_an_offset_of_each_channel():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.GroupNorm(1, 5))
    nn.init.normal_(net[1].weight)
    x = torch.randn(2, 3, 8, 8)
    before = net(x)
    names = add_adapter(net, "film")
    assert names == ["1.parametrizations.weight.0.scale", "1.parametrizations.bias.0.shift"]
    gamma, beta = torch.rand(5), torch.rand(5)
    found = functional_call(net, dict(zip(names, (gamma, beta), strict=True)), (x,))
    torch.testing.assert_close(
        found,
        before
        + (gamma - 1)[:, None, None] * (before - net[1].bias[:, None, None])
        + beta[:, None, None],
    )


def test_lora_changes_weights_by_its_rank():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 10))
    was = net[0].weight.detach().clone()
    move(net, add_adapter(net, "lora", rank=3))
    assert torch.linalg.matrix_rank(net[0].weight - was) == 3


def test_adapters_work_under_vmap_and_grad():
    torch.manual_seed(0)
    net, x = Conv4(1, channels=4).eval(), torch.randn(3, 1, 28, 28)
    names = add_adapter(net, "scale_shift")
    weights = {n: p.detach() for n, p in net.named_parameters() if n in names}

    def loss(weights):
        return functional_call(net, weights, (x,)).square().mean()

    stacked = {n: torch.stack([w, 2 * w]) for n, w in weights.items()}
    found = torch.func.vmap(torch.func.grad(loss))(stacked)
    alone = torch.func.grad(loss)({n: 2 * w for n, w in weights.items()})
    for name in names:
        torch.testing.assert_close(found[name][1], alone[name])


def test_last_names_the_weights_of_the_last_layers():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), nn.GroupNorm(1, 2), nn.Linear(2, 2))
    assert add_adapter(net, "last") == ["3.weight", "3.bias"]
    assert {n.partition(".")[0] for n in add_adapter(net, "last", count=2)} == {"1", "2", "3"}


def test_freezing_leaves_the_adapter_to_be_trained():
    net = Conv4(1, channels=4)
    names = add_adapter(net, "film")
    freeze_all_but(net, names)
    assert [n for n, p in net.named_parameters() if p.requires_grad] == names


@pytest.mark.parametrize(
    ("adapter", "options", "message"),
    [
        ("lorra", {}, "did you mean 'lora'"),
        ("lora", {"rank": 0}, "rank=0"),
        ("lora", {"rank": 17}, "rank=17 is above the rank of layer 'layers.1.0'"),
        ("lora", {"ranks": 2}, "no option of the adapter lora is called 'ranks'"),
        ("scale_shift", {"layers": ["layer.9"]}, "no layer for scale_shift is called 'layer.9'"),
        ("last", {"count": 0}, "count=0"),
        ("last", {"count": 9}, "this network has 4"),
    ],
)
def test_what_cannot_be_added_is_explained(adapter, options, message):
    net = Conv4(1, channels=16)
    with pytest.raises(ConfigError, match=message):
        add_adapter(net, adapter, **options)


def test_a_network_without_such_layers_is_refused():
    with pytest.raises(ConfigError, match="has none"):
        add_adapter(nn.Sequential(nn.Flatten()), "lora")
    with pytest.raises(ConfigError, match="no bias to move"):
        add_adapter(nn.Sequential(nn.Linear(2, 2, bias=False)), "bias")


def test_every_adapter_is_tried_here():
    assert set(ADAPTERS) == {*ADDED, "last"}


def test_merging_leaves_a_tied_weight_alone():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    before = net[0].weight.detach().clone()
    names = add_adapter(net, "scale_shift", layers=["1"])
    move(net, names)
    merge_adapters(net)
    assert torch.equal(net[0].weight, before)
    assert not torch.equal(net[1].weight, before)


def test_a_weight_with_a_parametrization_of_its_own_is_refused():
    net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)))
    with pytest.raises(ConfigError, match="weight of layer '0' is a parametrization already"):
        add_adapter(net, "lora", rank=2)


def test_a_completed_network_takes_merged_weights():
    plain = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), BatchNorm(4, scale=False))
    adapted, other = copy.deepcopy(plain), copy.deepcopy(plain)
    for adapter in ("scale_shift", "film"):
        move(adapted, add_adapter(adapted, adapter))
    merge_adapters(adapted)
    complete(other)
    x = torch.randn(2, 1, 5, 5)
    assert torch.equal(other(x), plain(x))
    other.load_state_dict(adapted.state_dict())
    torch.testing.assert_close(other.eval()(x), adapted.eval()(x))
