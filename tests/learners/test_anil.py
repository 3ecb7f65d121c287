"""ANIL is MAML whose inner loop moves the last layer alone."""

import pytest
import torch
from torch import nn

import kshot
from kshot.testing import gaussians

E = kshot.draw(gaussians()["train"], kshot.EpisodeSpec(3, 2, 4), 0, range(2))


def both(norm):
    """An ANIL, and a MAML of the same weights whose body is slow."""
    torch.manual_seed(0)
    body = kshot.nn.MLP(8, hidden=(16,), norm=norm)
    anil = kshot.ANIL(body, features=16, way=3, inner_lr=0.3, inner_steps=2)
    maml = kshot.MAML(nn.Sequential(body, anil.head.net), inner_lr=0.3, inner_steps=2)
    maml.head.fast_names = ["1.weight", "1.bias"]
    return anil, maml


@pytest.mark.parametrize("norm", [False, True])
def test_it_is_maml_with_a_slow_body(norm):
    anil, maml = both(norm)
    assert torch.allclose(anil(E), maml(E), atol=1e-5)
    ours = torch.autograd.grad(anil.loss(E), list(anil.parameters()))
    theirs = torch.autograd.grad(maml.loss(E), list(maml.parameters()))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    assert anil.transductive == maml.transductive == norm


def test_with_an_empty_body_it_is_maml():
    torch.manual_seed(0)
    anil = kshot.ANIL(nn.Identity(), features=8, way=3, inner_lr=0.3, inner_steps=2)
    maml = kshot.MAML(anil.head.net, inner_lr=0.3, inner_steps=2)
    assert torch.equal(anil(E), maml(E))
    assert torch.equal(anil.loss(E), maml.loss(E))


def test_the_body_learns_through_the_inner_steps():
    """First order differs: the support's embedding then has no part in the gradient."""
    anil, _ = both(norm=False)
    weight = next(anil.encoder.parameters())
    (second,) = torch.autograd.grad(anil.loss(E), weight)
    anil.head.gradient = "detached"
    (first,) = torch.autograd.grad(anil.loss(E), weight)
    assert first.abs().sum() > 0
    assert not torch.allclose(first, second, atol=1e-4)
