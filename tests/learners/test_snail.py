"""SNAIL against what its paper says."""

import pytest
import torch
from torch import nn

import kshot
from kshot.errors import ConfigError, EpisodeError
from kshot.learners.snail import AttentionBlock, DenseBlock, SnailHead
from kshot.testing import gaussians


def episode(tasks=2, way=3, shot=2, query=4):
    spec = kshot.EpisodeSpec(way, shot, query)
    return kshot.draw(gaussians()["train"], spec, 0, range(tasks))


def test_is_causal():
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


def test_cached_last_position_equals_the_whole_sequence():
    torch.manual_seed(0)
    head = SnailHead(8, way=3, length=6, filters=8).double()
    e = episode(tasks=2)
    support = e.support.with_x(e.support.x.double())
    state = head.fit(support, key=e.key)
    cached = head.predict(state, e.query.x.double())
    whole = torch.cat([head.embed(support.x), support.one_hot(torch.float64)], -1)
    asked = nn.functional.pad(head.embed(e.query.x.double()), (0, 3))
    real = torch.ones(2, 7, dtype=torch.bool)
    for q in range(asked.shape[1]):
        x = torch.cat([whole, asked[:, q : q + 1]], 1)
        for block in head.blocks:
            x = block(x, real) if isinstance(block, AttentionBlock) else block(x)
        assert torch.allclose(head.out(x[:, -1]), cached[:, q])


def test_has_the_papers_sizes():
    """Omniglot 5-way 1-shot: 69 -> 101 -> 485 -> 613 -> 997 -> 1253 channels."""
    head = SnailHead(64, way=5, length=5, filters=128)
    assert head.out.in_features == 1253
    dilations = [b.dilation for b in head.blocks if isinstance(b, DenseBlock)]
    assert dilations == [2, 4, 8, 2, 4, 8]


def test_at_first_a_position_attends_to_what_resembles_it():
    attention = AttentionBlock(5, 4, 3)
    x = torch.randn(1, 6, 5)
    assert torch.equal(attention.query(x), attention.key(x))
    assert attention.query.weight is not attention.key.weight


def test_refuses_longer_tasks():
    learner = kshot.SNAIL(nn.Identity(), features=8, way=3, length=6)
    with pytest.raises(EpisodeError, match="at most 6"):
        learner(episode(shot=3))


def test_a_sequence_of_values_gives_values():
    learner = kshot.SNAIL(nn.Identity(), features=1, y_shape=(2,), length=6, filters=8)
    x, y = torch.randn(3, 6, 1), torch.randn(3, 6, 2)
    predictor = learner.adapt(kshot.Examples(x, y))
    assert predictor(torch.randn(3, 4, 1)).shape == (3, 4, 2)
    longer = kshot.Examples(torch.randn(3, 7, 1), torch.randn(3, 7, 2))
    with pytest.raises(EpisodeError, match="at most 6"):
        learner.adapt(longer)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"length": 0}, "length=0"),
        ({"filters": 3}, "at least 4"),
        ({"embedding": 0}, "embedding=0"),
        ({"way": 1}, "at least 2 classes"),
        ({"way": -2}, "at least 2 classes"),
    ],
)
def test_impossible_options(options, says):
    with pytest.raises(ConfigError, match=says):
        kshot.SNAIL(nn.Identity(), features=8, **{"way": 3, "length": 4} | options)


def test_tasks_of_another_kind_are_refused():
    classes = kshot.SNAIL(nn.Identity(), features=8, way=3, length=6, filters=8)
    values = kshot.Examples(torch.randn(1, 4, 8), torch.randn(1, 4, 1))
    with pytest.raises(EpisodeError, match=r"built for 3 classes, but .* values of shape \(1,\)"):
        classes.adapt(values)
    regressor = kshot.SNAIL(nn.Identity(), features=8, length=6, filters=8)
    with pytest.raises(EpisodeError, match=r"values of shape \(1,\), but these tasks have classes"):
        regressor.adapt(episode().support)
