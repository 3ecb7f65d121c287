"""Learners on a pretrained encoder, against what they are by definition."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import nn

import kshot
from kshot.errors import ConfigError, EpisodeError
from kshot.testing import gaussians


@pytest.fixture
def episode():
    return kshot.draw(gaussians()["train"], kshot.EpisodeSpec(4, 3, 5), 0, [0, 1])


def test_simpleshot_is_the_nearest_centroid_of_centred_unit_features(episode):
    learner = kshot.SimpleShot(nn.Identity(), features=8).eval()
    base = torch.randn(50, 8) + 2
    learner.observe(base)

    def z(x):
        return F.normalize(x - base.mean(0), dim=-1)

    for task in range(2):
        s, q = z(episode.support.x[task]), z(episode.query.x[task])
        centres = torch.stack([s[episode.support.y[task] == k].mean(0) for k in range(4)])
        expected = -((q[:, None] - centres) ** 2).sum(-1)
        torch.testing.assert_close(learner(episode)[task], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("transform", ["un", "l2n"])
def test_simpleshot_without_centring_needs_no_base_classes(episode, transform):
    learner = kshot.SimpleShot(nn.Identity(), features=8, transform=transform).eval()
    before = learner(episode)
    learner.observe(torch.randn(50, 8))
    assert torch.equal(learner(episode), before)
    if transform == "un":
        torch.testing.assert_close(before, kshot.ProtoNet(nn.Identity()).eval()(episode))


def test_rfs_is_scikit_learns_logistic_regression(episode):
    answer = kshot.RFS(nn.Identity(), penalty=0.5).eval()(episode)
    for task in range(2):
        x, y = F.normalize(episode.support.x[task], dim=-1), episode.support.y[task]
        own = LogisticRegression(C=2.0, max_iter=1000, tol=1e-8).fit(x.numpy(), y.numpy())
        expected = own.predict_proba(F.normalize(episode.query.x[task], dim=-1).numpy())
        np.testing.assert_allclose(answer[task].softmax(-1).numpy(), expected, atol=1e-4)


def test_a_cache_without_weight_leaves_the_class_means(episode):
    tip = kshot.TipAdapter(nn.Identity(), alpha=1e-6, scale=10.0).eval()
    unit = F.normalize(episode.support.x, dim=-1)
    means = torch.stack(
        [
            torch.stack([unit[t][episode.support.y[t] == k].mean(0) for k in range(4)])
            for t in range(2)
        ]
    )
    expected = 10 * F.normalize(episode.query.x, dim=-1) @ F.normalize(means, dim=-1).mT
    torch.testing.assert_close(tip(episode), expected, atol=1e-4, rtol=1e-4)


def test_the_caches_vote_is_the_papers(episode):
    tip = kshot.TipAdapter(nn.Identity(), alpha=2.0, beta=3.0, scale=1e-6).eval()
    f, keys = F.normalize(episode.query.x, dim=-1), F.normalize(episode.support.x, dim=-1)
    values = F.one_hot(episode.support.y, 4).float()
    expected = 2 * torch.exp(-3 * (1 - f @ keys.mT)) @ values
    torch.testing.assert_close(tip(episode), expected, atol=1e-4, rtol=1e-4)


def test_moving_the_caches_keys_fits_the_support(episode):
    def loss(steps):
        tip = kshot.TipAdapter(nn.Identity(), inner_steps=steps, inner_lr=0.05).eval()
        logits = tip.adapt(episode.support)(episode.support.x)
        return F.cross_entropy(logits.flatten(0, 1), episode.support.y.flatten())

    assert loss(20) < loss(0)


def test_fine_tuning_of_the_last_layer_leaves_the_encoder_alone(episode):
    encoder = kshot.nn.MLP(8, hidden=(16,))
    shape = kshot.learners.TaskShape((8,), 4, 12)
    learner = kshot.FineTuning.for_tasks(encoder, shape, fast="last", inner_lr=0.1).eval()
    state = learner.adapt(episode.support).state.head
    assert set(state.weights) == {"1.weight", "1.bias"}
    whole = kshot.FineTuning.for_tasks(encoder, shape, inner_lr=0.1, inner_steps=0).eval()
    assert not whole(episode).any()  # the last layer starts at zero


def test_pmf_without_steps_is_a_protonet_of_cosines(episode):
    torch.manual_seed(0)
    encoder = kshot.nn.MLP(8, hidden=(16,))
    pmf = kshot.PMF(encoder, test_steps=0).eval()
    proto = kshot.ProtoNet(encoder, distance="cosine").eval()
    torch.testing.assert_close(pmf(episode), proto(episode))
    torch.testing.assert_close(pmf.train().loss(episode), proto.train().loss(episode))


def test_pmf_fits_its_support_and_leaves_the_encoder_as_it_was():
    torch.manual_seed(0)
    digits = kshot.draw(kshot.load("digits")["test"], kshot.EpisodeSpec(5, 2, 3), 0, [0, 1])
    pmf = kshot.PMF(kshot.nn.Conv4(channels=16), test_steps=10, inner_lr=1e-3).eval()
    before = {k: v.clone() for k, v in pmf.state_dict().items()}

    def loss(views):
        pmf.head.views = views
        logits = pmf.adapt(digits.support)(digits.support.x)
        return F.cross_entropy(logits.flatten(0, 1), digits.support.y.flatten()).item()

    pmf.head.test_steps = 0
    start = loss(True)
    pmf.head.test_steps = 10
    assert loss(True) < start
    assert loss(False) < loss(True)  # the very images that are asked
    assert all(torch.equal(v, before[k]) for k, v in pmf.state_dict().items())


def test_the_base_classifier_learns_the_splits_own_classes():
    torch.manual_seed(0)
    data = gaussians()
    encoder = kshot.nn.MLP(8, hidden=(32,), norm=True)
    learner = kshot.Baseline(encoder, features=32, way=4, classes=len(data["train"].classes))
    history = kshot.pretrain(learner, data["train"], steps=150, lr=1e-2, progress=False)
    assert history.steps == 150
    episode = kshot.draw(data["train"], kshot.EpisodeSpec(10, 1, 1), 1, range(5))
    z = encoder(episode.query.x.flatten(0, 1))
    classes = episode.classes.gather(1, episode.query.y).flatten()
    assert (learner.classifier(z).argmax(-1) == classes).float().mean() > 0.9


def test_pretraining_needs_classes_and_a_classifier():
    with pytest.raises(ConfigError, match="ProtoNet is not trained by classification"):
        kshot.pretrain(kshot.ProtoNet(nn.Flatten()), gaussians())
    with pytest.raises(ConfigError, match="of which 0 are known"):
        kshot.Baseline(nn.Flatten(), features=8, way=4, classes=0)
    learner = kshot.Baseline(nn.Flatten(), features=8, way=4, classes=3)
    with pytest.raises(kshot.errors.EpisodeError, match="built for 3"):
        kshot.pretrain(learner, gaussians(), steps=1, progress=False)


def test_fine_tuning_sees_changed_copies_of_the_support():
    """The same ones whenever the task is the same; another task has others."""
    torch.manual_seed(0)
    net = nn.Sequential(kshot.nn.Conv4(channels=4), nn.Linear(4, 3))
    e = kshot.draw(kshot.load("digits")["test"], kshot.EpisodeSpec(way=3), 0, [0, 1])

    def answers(augment, episode=e, **options):
        learner = kshot.FineTuning(
            copy.deepcopy(net),
            inner_steps=3,
            inner_lr=0.1,
            augment=augment,
            **options,
        )
        return learner.adapt(episode.support, key=episode.key)(episode.query.x)

    plain, changed = answers([]), answers(["affine", "crop", "flip", "jitter"])
    assert not torch.allclose(plain, changed)
    assert torch.equal(changed, answers(["affine", "crop", "flip", "jitter"]))
    small = answers(["flip"], inner_batch=2)
    assert torch.isfinite(small).all()
    other = kshot.FineTuning(net, inner_steps=3, augment=["crop"])
    both = [other.adapt(e.support, key=torch.tensor(k))(e.query.x) for k in ([0, 1], [2, 3])]
    assert not torch.allclose(*both)


def test_unknown_augmentations_and_other_inputs_are_refused():
    net = nn.Linear(8, 3)
    with pytest.raises(ConfigError, match="did you mean 'flip'"):
        kshot.FineTuning(net, augment=["flop"])
    with pytest.raises(ConfigError, match="augment has no vmap"):
        kshot.FineTuning(net, augment=["flip"], engine="vmap")
    support = kshot.Examples(torch.randn(1, 3, 8), torch.arange(3)[None], way=3)
    with pytest.raises(EpisodeError, match="augment is for images"):
        kshot.FineTuning(net, augment=["flip"]).adapt(support)
