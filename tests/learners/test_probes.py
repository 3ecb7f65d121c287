"""Reptile, Meta-LSTM, SNAIL, TIM, CNP: each against what its paper says."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call

import kshot
from kshot.engine import SGD
from kshot.errors import EpisodeError
from kshot.learners.base import MetaLearner
from kshot.learners.inner_loop import InnerLoop
from kshot.learners.meta_lstm import LSTMRule, preprocess
from kshot.learners.snail import AttentionBlock, DenseBlock, SnailHead
from kshot.testing import gaussians


def episode(tasks=2, way=3, shot=2, query=4):
    spec = kshot.EpisodeSpec(way, shot, query)
    return kshot.draw(gaussians()["train"], spec, 0, range(tasks))


def net(way=3):
    torch.manual_seed(0)
    return nn.Sequential(kshot.nn.MLP(8, hidden=(16,)), nn.Linear(16, way))


def test_reptile_with_one_sgd_step_is_joint_training():
    """Pitfall 16: the meta-gradient is inner_lr times the mean gradient over tasks."""
    e = episode(tasks=4)
    learner = kshot.Reptile(net(), inner_steps=1, inner_batch=100)
    learner.head.rule = SGD(0.1)
    found = torch.autograd.grad(learner.train().loss(e), list(learner.parameters()))
    joint = nn.functional.cross_entropy(
        learner.head.net(e.support.x.flatten(0, 1)), e.support.y.flatten()
    )
    expected = torch.autograd.grad(joint, list(learner.parameters()))
    for f, x in zip(found, expected, strict=True):
        assert torch.allclose(f, 0.1 * x, atol=1e-6)


def test_reptile_needs_no_query():
    e = kshot.draw(gaussians()["train"], kshot.EpisodeSpec(3, 5, 0), 0, [0])
    assert kshot.Reptile(net()).train().loss(e).requires_grad


def test_reptile_batches_pass_over_the_support_without_replacement():
    learner = kshot.Reptile(net(), inner_batch=4)
    rows = learner.head._batches(8, 4, torch.tensor([3, 9]))
    assert rows.shape == (2, 4, 4)
    for task in rows:
        assert sorted(task[:2].flatten().tolist()) == list(range(8))
        assert sorted(task[2:].flatten().tolist()) == list(range(8))
    assert not torch.equal(rows[0], rows[1])
    assert torch.equal(rows, learner.head._batches(8, 4, torch.tensor([3, 9])))


def test_meta_lstm_preprocessing_has_the_papers_values():
    """Pitfall 13: 1 -> (0, 1); e^-5 -> (-0.5, 1); -1e-5 -> (-1, -0.2202647)."""
    found = preprocess(torch.tensor([1.0, math.exp(-5), -1e-5]))
    expected = torch.tensor([[0.0, 1.0], [-0.5, 1.0], [-1.0, -0.2202647]])
    assert torch.allclose(found, expected, atol=1e-5)


def test_meta_lstm_gates_start_as_published():
    rule = LSTMRule()
    assert 4 <= rule.forget_gate.bias.item() <= 5
    assert -5 <= rule.input_gate.bias.item() <= -4
    assert all(p.abs().max() <= 0.01 for n, p in rule.named_parameters() if "gate.bias" not in n)


def test_meta_lstm_shares_its_weights_over_coordinates():
    """Two coordinates with the same weight and gradient move in the same way."""
    rule = LSTMRule()
    fast = {"a": torch.tensor([0.3, 0.3, -1.0])}
    moved, state = rule.step(
        0, fast, {"a": torch.tensor([0.1, 0.1, 0.7])}, torch.tensor(1.0), rule.init(fast)
    )
    assert moved["a"][0] == moved["a"][1] != moved["a"][2]
    assert state.h.shape == (3, 20)


def test_meta_lstm_takes_gradients_as_constants():
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


def test_snail_is_causal():
    """Pitfall 14: output t does not depend on inputs after t."""
    torch.manual_seed(0)
    real = torch.ones(1, 9, dtype=torch.bool)
    x = torch.randn(1, 9, 5)
    later = x.clone()
    later[:, 5:] += 1
    dense, attention = DenseBlock(5, 2, 4), AttentionBlock(5, 4, 3)
    assert torch.equal(dense(x)[:, :5], dense(later)[:, :5])
    assert torch.allclose(attention(x, real)[:, :5], attention(later, real)[:, :5])
    assert not torch.allclose(dense(x)[:, 5:], dense(later)[:, 5:])


def test_snail_cached_last_position_equals_the_whole_sequence():
    torch.manual_seed(0)
    head = SnailHead(8, way=3, length=6, filters=8).double()
    e = episode(tasks=2)
    support = e.support.with_x(e.support.x.double())
    state = head.fit(support, key=e.key)
    cached = head.predict(state, e.query.x.double())
    whole = torch.cat([support.x, support.one_hot(torch.float64)], -1)
    asked = nn.functional.pad(e.query.x.double(), (0, 3))
    real = torch.ones(2, 7, dtype=torch.bool)
    for q in range(asked.shape[1]):
        x = torch.cat([whole, asked[:, q : q + 1]], 1)
        for block in head.blocks:
            x = block(x, real) if isinstance(block, AttentionBlock) else block(x)
        assert torch.allclose(head.out(x[:, -1]), cached[:, q])


def test_snail_has_the_papers_sizes():
    """Omniglot 5-way 1-shot: 69 -> 101 -> 485 -> 613 -> 997 -> 1253 channels."""
    head = SnailHead(64, way=5, length=5, filters=128)
    assert head.out.in_features == 1253
    dilations = [b.dilation for b in head.blocks if isinstance(b, DenseBlock)]
    assert dilations == [2, 4, 8, 2, 4, 8]


def test_snail_refuses_longer_tasks():
    learner = kshot.SNAIL(nn.Identity(), features=8, way=3, length=6)
    with pytest.raises(EpisodeError, match="at most 6"):
        learner(episode(shot=3))


def test_tim_objective_and_gain():
    """Refinement raises the mutual information, and helps on balanced, noisy tasks."""
    noisy = gaussians()["test"]
    noise = torch.randn(noisy.x.shape, generator=torch.Generator().manual_seed(0))
    noisy = noisy.with_x(noisy.x + 2 * noise)
    scores = {}
    for steps in (0, 100):
        learner = kshot.TIM(nn.Identity(), steps=steps, inner_lr=1e-2)
        result = kshot.evaluate(learner, noisy, way=5, shot=1, query=15, episodes=200)
        scores[steps] = result.mean
        assert result.transductive
    assert scores[100] > scores[0] + 0.03


def test_tim_starts_at_the_prototypes_of_unit_vectors():
    e = episode()
    unit = [nn.functional.normalize(p.x, dim=-1) for p in (e.support, e.query)]
    proto = kshot.ProtoNet(nn.Identity())(
        kshot.Episode(e.support.with_x(unit[0]), e.query.with_x(unit[1]), e.key)
    )
    assert torch.allclose(kshot.TIM(nn.Identity(), steps=0).eval()(e), 7.5 * proto, atol=1e-4)


def test_transductive_learners_ask_for_the_queries():
    with pytest.raises(EpisodeError, match="unlabelled=queries"):
        kshot.TIM(nn.Identity()).adapt(episode().support)


def test_cnp_counts_the_support_in_its_loss_and_has_a_floor():
    waves = kshot.draw(kshot.load("sinusoid")["test"], kshot.EpisodeSpec(shot=4, query=6), 0, [0])
    learner = kshot.CNP(1, hidden=(16, 16, 16), decoder=(16,))
    mean, std = learner(waves)
    assert mean.shape == (1, 6, 1)
    assert (std > 0.1).all()
    on = learner.adapt(waves.support)
    parts = [
        -torch.distributions.Normal(*on(p.x)).log_prob(p.y) for p in (waves.support, waves.query)
    ]
    expected = torch.cat([p.flatten() for p in parts]).mean()
    assert torch.allclose(learner.loss(waves), expected)


def test_a_slow_part_inside_the_head_is_shared_and_trained():
    """ANIL-like: only the last layer is fast; the body still gets the outer gradient."""
    network = net()
    head = InnerLoop(network, SGD(0.5), steps=2, fast=lambda name: name.startswith("1."))
    learner = MetaLearner(nn.Identity(), head, normalization="task").train()
    e = episode()
    state = head.fit(e.support, key=e.key)
    assert sorted(state.weights) == ["1.bias", "1.weight"]
    learner.loss(e).backward()
    assert all(p.grad.abs().sum() > 0 for p in network.parameters())
    alone = {n: w[0] for n, w in state.weights.items()}
    expected = functional_call(network, alone, (e.query.x[0],))
    assert torch.allclose(learner(e)[0], expected, atol=1e-6)
