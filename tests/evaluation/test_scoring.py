"""Scores and records."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import kshot
from kshot.errors import EpisodeError
from kshot.evaluation import embedded, mean_interval, score_episodes
from kshot.testing import gaussians


def test_interval_is_the_textbooks():
    """Pitfall 9: mean 2, s = 1, n = 3: 1.96 / sqrt(3)."""
    mean, interval = mean_interval(np.array([1.0, 2.0, 3.0]))
    assert mean == 2.0
    assert interval == pytest.approx(1.96 / 3**0.5)
    with pytest.raises(EpisodeError, match="at least 2"):
        mean_interval(np.array([1.0]))


def test_accuracy_is_the_share_of_right_answers():
    split, spec = gaussians()["test"], kshot.EpisodeSpec(5, 1, 3)
    learner = kshot.ProtoNet(nn.Identity())
    result = kshot.evaluate(learner, split, way=5, shot=1, query=3, episodes=30, seed=4)
    by_hand = []
    for i in range(30):
        e = kshot.draw(split, spec, 4, [i])
        by_hand.append((learner(e).argmax(-1) == e.query.y).float().mean().item())
    assert result.values.tolist() == pytest.approx(by_hand)
    assert result.mean == pytest.approx(np.mean(by_hand))


def test_embedding_once_gives_the_same_scores():
    torch.manual_seed(0)
    digits, learner = kshot.load("digits")["test"], kshot.ProtoNet(kshot.nn.Conv4()).eval()
    frozen = kshot.FrozenEpisodes(digits, kshot.EpisodeSpec(5, 1, 10), 40)
    once = score_episodes(learner, frozen)["accuracy"]
    direct = []
    with torch.no_grad():
        for e in frozen.batches(10):
            direct += (learner(e).argmax(-1) == e.query.y).double().mean(1).tolist()
    assert once.tolist() == pytest.approx(direct)
    twin, features = embedded(learner, digits)
    assert isinstance(twin.encoder, nn.Identity)
    assert features.x.shape == (1797, 64)
    assert not isinstance(learner.encoder, nn.Identity)


def test_a_mixture_is_embedded_source_by_source():
    torch.manual_seed(0)
    learner = kshot.ProtoNet(kshot.nn.MLP(8)).eval()
    noise = [kshot.Dataset.from_arrays(torch.randn(90, 8), [*range(9)] * 10) for _ in range(2)]
    mixture = kshot.Mixture("both", tuple(data["test"] for data in noise))
    result = kshot.evaluate(learner, mixture, way=(2, 5), shot="any", query=4, episodes=60)
    assert result.source == "both"
    assert result.task == "2-5-way any-shot"
    by_hand = []
    for i in range(60):
        e = kshot.draw(mixture, kshot.EpisodeSpec((2, 5), "any", 4), 0, [i])
        by_hand.append((learner(e).argmax(-1) == e.query.y).float().mean().item())
    assert result.values.tolist() == pytest.approx(by_hand)
    twin, features = embedded(learner, mixture)
    assert isinstance(twin.encoder, nn.Identity)
    assert [s.x.shape for s in features.sources] == [(90, 40)] * 2
    assert features.fingerprint == mixture.fingerprint


def test_a_batch_dependent_encoder_is_not_cached():
    class Leaky(nn.Module):
        def forward(self, x):
            return x.flatten(1) - x.flatten(1).mean(0)

    learner, digits = kshot.ProtoNet(Leaky()), kshot.load("digits")["test"]
    same, split = embedded(learner, digits)
    assert same is learner
    assert split is digits


@pytest.mark.parametrize("episodes", [5, 200])  # too few, and enough, to embed the split once
def test_evaluating_leaves_the_learner_as_it_was(episodes):
    learner = kshot.ProtoNet(kshot.nn.MLP(8, norm=True)).train()
    learner.encoder.layers[1].eval()
    before = {k: v.clone() for k, v in learner.state_dict().items()}
    kshot.evaluate(learner, gaussians()["test"], episodes=episodes, query=3)
    assert learner.training
    assert learner.encoder.training
    assert not learner.encoder.layers[1].training
    assert all(torch.equal(v, before[k]) for k, v in learner.state_dict().items())


def test_the_record_says_everything():
    result = kshot.evaluate(
        kshot.MAML(nn.Sequential(kshot.nn.MLP(8, norm=True), nn.Linear(40, 5))),
        gaussians()["test"],
        episodes=3,
        query=2,
        meta_steps=7,
    )
    record = json.loads(json.dumps(result.as_dict()))
    assert record["transductive"] is True
    assert record["normalization"] == "task"
    assert record["task"] == "5-way 1-shot"
    assert record["source"] == "gaussians/test"
    assert record["meta_steps"] == 7
    assert len(record["episode_hash"]) == 16
    assert {"kshot", "torch", "python", "numpy"} <= set(record["versions"])
    assert "values" not in record
    assert {"command", "commit", "interval", "std", "seed", "spec"} <= set(record)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"query": 0}, "at least 1 query"),
        ({"way": 50}, "needs 50 classes"),
        ({"shot": 15, "query": 15}, "has 20"),
        ({"episodes": 1}, "at least 2"),
    ],
)
def test_impossible_evaluations(arguments, says):
    with pytest.raises(EpisodeError, match=says):
        kshot.evaluate(kshot.NearestNeighbour(), gaussians()["test"], **arguments)


def test_nearest_neighbour_is_scikit_learns():
    from sklearn.neighbors import KNeighborsClassifier

    digits = kshot.load("digits")["test"]
    e = kshot.draw(digits, kshot.EpisodeSpec(8, 3, 5), 0, [0])
    x, q = (p.x[0].flatten(1).numpy() for p in (e.support, e.query))
    oracle = KNeighborsClassifier(1).fit(x, e.support.y[0].numpy()).predict(q)
    assert np.array_equal(oracle, kshot.NearestNeighbour()(e)[0].argmax(-1).numpy())


def test_gaussian_coverage_is_measured():
    class Sure(kshot.CNP):
        def predict(self, state, x, mask=None):
            return kshot.types.Gaussian(torch.zeros_like(x), torch.full_like(x, 1e3))

    result = kshot.evaluate(Sure(1), kshot.load("sinusoid")["test"], shot=5, episodes=50)
    assert result.extra["coverage_90"] == 1.0
    assert result.mean == pytest.approx(4.25, abs=1.5)


def test_a_learner_that_diverged_is_marked():
    class Diverged(kshot.NearestNeighbour):
        def forward(self, episode):
            return super().forward(episode) * float("nan")

    result = kshot.evaluate(Diverged(), gaussians()["test"], query=2, episodes=3)
    assert str(result) == "not finite"
    assert result.as_dict()["mean"] is None


@pytest.mark.parametrize("side", [32, 128])
def test_an_encoder_that_looks_at_the_batch_is_never_cached(side):
    """Also where a single image fills a forward."""

    class Centred(nn.Module):
        def forward(self, x):
            z = x.mean((2, 3))
            return z - z.mean(0)

    x = torch.rand(12, 3, side, side)
    split = kshot.Dataset.from_arrays(x, [i // 4 for i in range(12)])["test"]
    learner = kshot.ProtoNet(Centred()).eval()
    assert embedded(learner, split) == (learner, split)
