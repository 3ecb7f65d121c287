"""Layers that cannot be differentiated twice are named, with the remedy."""

import pytest
import torch
from torch import nn

import kshot
from kshot.engine import once_differentiable_layers
from kshot.errors import DifferentiationError


class FusedAttention(nn.Module):
    """Scaled dot-product attention by the fused kernel, whose backward has no derivative."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(size, 3 * size)

    def forward(self, x):
        q, k, v = self.qkv(x.reshape(x.shape[0], 1, 2, -1)).chunk(3, -1)
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
            return nn.functional.scaled_dot_product_attention(q, k, v).flatten(1)


def attention_net() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), FusedAttention(8), nn.Linear(16, 3))


def test_the_failing_layer_is_found():
    assert once_differentiable_layers(attention_net(), torch.randn(4, 8)) == ["1"]
    assert once_differentiable_layers(nn.Sequential(nn.Linear(8, 3)), torch.randn(4, 8)) == []


def test_meta_training_names_the_layer_and_first_order_works():
    x, y = torch.randn(60, 8), [i % 6 for i in range(60)]
    data = kshot.Dataset.from_arrays(x, y)["test"]
    second = kshot.MAML(attention_net(), engine="loop")
    with pytest.raises(DifferentiationError, match=r"layer '1' .*first_order=True"):
        kshot.meta_train(second, data, way=3, query=2, steps=1, progress=False)
    first = kshot.MAML(attention_net(), first_order=True, engine="loop")
    history = kshot.meta_train(first, data, way=3, query=2, steps=2, progress=False)
    assert history.steps == 2


def test_another_failure_of_a_learner_with_an_encoder_keeps_its_own_words():
    """The head's network takes features: probing it with raw inputs would fail in its own way."""

    class Broken(nn.Linear):
        def forward(self, z):
            if z.requires_grad:
                raise RuntimeError("the true cause")
            return super().forward(z)

    learner = kshot.ANIL(kshot.nn.MLP(8, hidden=(4,)), features=4, way=3, engine="loop")
    learner.head.net = Broken(4, 3)
    data = kshot.Dataset.from_arrays(torch.randn(60, 8), [i % 6 for i in range(60)])["test"]
    with pytest.raises(RuntimeError, match="the true cause"):
        kshot.meta_train(learner, data, way=3, query=2, steps=1, progress=False)
