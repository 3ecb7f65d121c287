"""Meta-LSTM against what its paper says."""

import math

import pytest
import torch
from torch import nn

import kshot
from kshot.engine import SGD, adapt_weights
from kshot.errors import ConfigError
from kshot.learners.meta_lstm import LSTMRule, preprocess
from kshot.testing import gaussians


def episode(tasks=2, way=3, shot=2, query=4):
    spec = kshot.EpisodeSpec(way, shot, query)
    return kshot.draw(gaussians()["train"], spec, 0, range(tasks))


def net(way=3):
    torch.manual_seed(0)
    return nn.Sequential(kshot.nn.MLP(8, hidden=(16,)), nn.Linear(16, way))


def test_preprocessing_has_the_papers_values():
    """Pitfall 13: 1 -> (0, 1); e^-5 -> (-0.5, 1); -1e-5 -> (-1, -0.2202647)."""
    found = preprocess(torch.tensor([1.0, math.exp(-5), -1e-5]))
    expected = torch.tensor([[0.0, -0.5, -1.0], [1.0, 1.0, -0.2202647]])
    assert torch.allclose(found, expected, atol=1e-5)


def test_gates_start_as_published():
    rule = LSTMRule()
    assert 4 <= rule.forget_gate.bias.item() <= 5
    assert -5 <= rule.input_gate.bias.item() <= -4
    assert all(p.abs().max() <= 0.01 for n, p in rule.named_parameters() if "gate.bias" not in n)


def test_shares_its_weights_over_coordinates():
    """Two coordinates with the same weight and gradient move in the same way."""
    rule = LSTMRule()
    fast = {"a": torch.tensor([0.3, 0.3, -1.0])}
    moved, state = rule.step(
        0, fast, {"a": torch.tensor([0.1, 0.1, 0.7])}, torch.tensor(1.0), rule.init(fast)
    )
    assert moved["a"][0] == moved["a"][1] != moved["a"][2]
    assert state.h.shape == (20, 3)


def test_takes_gradients_as_constants():
    """The outer gradient reaches the learned start only through the cell chain."""
    e = episode(tasks=1)
    learner = kshot.MetaLSTM(net(), inner_steps=1).train()
    weights = learner.head.fit(e.support, key=e.key).weights["1.bias"]
    start = learner.head.net[1].bias
    jacobian = torch.stack(
        [torch.autograd.grad(weights[0, i], start, retain_graph=True)[0] for i in range(3)]
    )
    off_diagonal = jacobian - torch.diag(jacobian.diagonal())
    assert off_diagonal.abs().max() == 0
    assert (jacobian.diagonal() > 0.9).all()


def test_an_open_forget_gate_and_a_constant_input_gate_are_gradient_descent():
    rule = LSTMRule().double()
    for gate, value in ((rule.forget_gate, 40.0), (rule.input_gate, math.log(0.1 / 0.9))):
        nn.init.zeros_(gate.weight)
        nn.init.constant_(gate.bias, value)

    def loss(weights, k):
        return ((weights["w"] - 3) ** 2).sum()

    start = {"w": torch.tensor([1.0, -2.0], dtype=torch.float64)}
    by_rule = adapt_weights(loss, start, rule, 4)["w"]
    assert torch.allclose(by_rule, adapt_weights(loss, start, SGD(0.1), 4)["w"])


def test_the_order_matters_where_mini_batches_are_drawn():
    assert kshot.MetaLSTM(net()).order_free
    assert not kshot.MetaLSTM(net(), inner_batch=2).order_free


def test_an_lstm_without_units_is_refused():
    with pytest.raises(ConfigError, match="at least 1 unit"):
        kshot.MetaLSTM(net(), hidden=0)
