"""Matching Networks: identities, attention, and the paper's details."""

import math

import pytest
import torch
from torch import nn

import kshot
from kshot.errors import ConfigError, EpisodeError
from kshot.learners.matching import Memory
from kshot.testing import gaussians


def episode(tasks=2, way=3, shot=2, query=4):
    return kshot.draw(gaussians()["train"], kshot.EpisodeSpec(way, shot, query), 0, range(tasks))


def test_one_shot_is_the_cosine_prototype():
    """With one example per class, attention over the support is a softmax over the means."""
    e = episode(shot=1)
    matching = kshot.MatchingNet(nn.Identity(), temperature=0.25).eval()(e)
    proto = kshot.ProtoNet(nn.Identity(), distance="cosine", scale=4.0).eval()(e)
    assert torch.allclose(matching.exp(), proto.softmax(-1), atol=1e-6)


def test_the_weights_of_a_class_add_up():
    """By hand, one query: a_i = softmax(cos / T), P(y) = sum_i a_i y_i."""
    x = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]])
    support = kshot.Examples(x, torch.tensor([[0, 1, 0]]), way=2)
    learner = kshot.MatchingNet(nn.Identity(), temperature=0.5)
    found = learner.adapt(support)(torch.tensor([[[3.0, 0.0]]]))[0, 0].exp()
    a = [math.exp(2), 1.0, math.exp(-2)]
    expected = torch.tensor([a[0] + a[2], a[1]]) / sum(a)
    assert torch.allclose(found, expected)


def test_values_are_averaged():
    x = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    support = kshot.Examples(x, torch.tensor([[[5.0], [-1.0]]]))
    found = kshot.MatchingNet(nn.Identity()).adapt(support)(torch.tensor([[[2.0, 0.0]]]))
    assert found.item() == pytest.approx((math.e * 5 - 1) / (math.e + 1))


def test_context_without_weights_is_no_context():
    """LSTMs whose weights are zero put out zero: g = g' and f = f'."""
    e = episode()
    learner = kshot.MatchingNet(nn.Identity(), fce=True, features=8)
    for p in learner.head.parameters():
        nn.init.zeros_(p)
    plain = kshot.MatchingNet(nn.Identity())(e)
    assert torch.allclose(learner(e), plain, atol=1e-6)


def test_context_matters_and_so_does_the_order_of_the_support():
    e = episode(tasks=1)
    torch.manual_seed(0)
    learner = kshot.MatchingNet(nn.Identity(), fce=True, features=8).eval()
    assert not torch.allclose(learner(e), kshot.MatchingNet(nn.Identity())(e), atol=1e-3)
    back = kshot.Examples(e.support.x.flip(1), e.support.y.flip(1), way=3)
    assert not torch.allclose(learner(kshot.Episode(back, e.query, e.key)), learner(e), atol=1e-5)
    assert not learner.order_free
    assert kshot.MatchingNet(nn.Identity()).order_free


def test_reading_is_the_papers_recurrence():
    """Written with [h, r] as the recurrent input, as in the paper, from the cell's weights."""
    torch.manual_seed(0)
    learner = kshot.MatchingNet(nn.Identity(), fce=True, features=4, read_steps=2).double()
    z, g = torch.randn(1, 1, 4).double(), torch.randn(1, 3, 4).double()
    cell = learner.head.reading.cell
    h = c = torch.zeros(4).double()
    for _ in range(2):
        r = (g[0] @ h).softmax(0) @ g[0]
        gates = (
            cell.weight_ih[:, :4] @ z[0, 0]
            + cell.weight_hh @ h
            + cell.weight_ih[:, 4:] @ r
            + cell.bias_ih
            + cell.bias_hh
        )
        i, f, candidate, o = gates.chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * candidate.tanh()
        h = o.sigmoid() * c.tanh() + z[0, 0]
    real = torch.ones(1, 3, dtype=torch.bool)
    found = learner.head.reading(z, Memory(g, g, real, None))
    assert torch.allclose(found[0, 0], h)


def test_a_zero_vector_resembles_all_alike():
    x = torch.zeros(1, 2, 3)
    support = kshot.Examples(x, torch.tensor([[0, 1]]), way=2)
    learner = kshot.MatchingNet(nn.Linear(3, 3, bias=False), temperature=0.1)
    logits = learner.adapt(support)(torch.zeros(1, 1, 3))
    assert torch.allclose(logits.exp(), torch.tensor([0.5]))
    logits.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in learner.parameters())


def test_the_gradient_of_a_zero_vector_is_moderate():
    support = kshot.Examples(torch.eye(3)[None, :2], torch.tensor([[0, 1]]), way=2)
    encoder = nn.Linear(3, 3)
    nn.init.eye_(encoder.weight)
    nn.init.zeros_(encoder.bias)
    learner = kshot.MatchingNet(encoder, temperature=0.1)
    learner.adapt(support)(torch.zeros(1, 1, 3))[0, 0, 0].backward()
    assert 0 < encoder.bias.grad.abs().max() < 100


def test_a_cold_temperature_keeps_a_gradient():
    """Weights of a class that underflow to zero still have a logarithm."""
    learner = kshot.MatchingNet(nn.Linear(8, 8), temperature=1e-3)
    e = episode()
    wrong = kshot.Examples(e.query.x, (e.query.y + 1) % 3, way=3)
    loss = learner.loss(kshot.Episode(e.support, wrong, e.key))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad.abs().sum() > 0 for p in learner.parameters())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"temperature": 0.0}, "greater than 0"),
        ({"temperature": -1.0}, "greater than 0"),
        ({"temperature": 1e-40}, "at least"),
        ({"temperature": float("inf")}, "finite"),
        ({"temperature": math.inf}, "finite"),
        ({"fce": True}, "features"),
        ({"fce": True, "features": 8, "read_steps": 0}, "at least once"),
    ],
)
def test_impossible_options(options, says):
    with pytest.raises(ConfigError, match=says):
        kshot.MatchingNet(nn.Identity(), **options)


def test_tables_tell_full_context_apart():
    assert kshot.MatchingNet(nn.Identity(), fce=True, features=4).title == "MatchingNet, FCE"
    assert kshot.MatchingNet(nn.Identity()).title == "MatchingNet"


def test_full_context_of_another_size_than_the_encoders_is_refused():
    with pytest.raises(EpisodeError, match="8 features, but this MatchingNet was built for"):
        kshot.MatchingNet(nn.Identity(), fce=True, features=6).adapt(episode().support)
