"""`FewShotClassifier("auto")`: a head for these examples, and why."""

import numpy as np
import pytest
import torch

import kshot
from kshot.estimators import classifier
from kshot.estimators.choice import HEADS, Ranker, choose, descriptors, evidence, expanded
from kshot.learners.nearest_neighbour import NearestNeighbour
from tests.estimators.test_classifier import blobs

pytestmark = pytest.mark.filterwarnings("ignore:the confidence rests")


def rings(each, seed=0):
    """Two classes, one around the other: class means are the same."""
    generator = np.random.default_rng(seed)
    angle = generator.uniform(0, 2 * np.pi, 2 * each)
    y = np.repeat([0, 1], each)
    radius = np.array([1.0, 4.0])[y] + 0.2 * generator.normal(size=2 * each)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1), y


def test_what_suits_the_examples_is_chosen():
    x, y = rings(20)
    new, truth = rings(100, seed=1)
    model = kshot.FewShotClassifier("auto").fit(x, y)
    assert isinstance(model.learner_, NearestNeighbour)
    assert "left out in turn" in model.choice_.reason
    assert model.score(new, truth) > 0.9
    assert kshot.FewShotClassifier().fit(x, y).score(new, truth) < 0.7


def test_one_example_per_class_leaves_the_prior():
    x, y = blobs(5, 1)
    model = kshot.FewShotClassifier("auto").fit(x, y)
    assert "descriptors of the task alone" in model.choice_.reason
    assert set(model.choice_.expected) == {("", head) for head in HEADS}
    assert max(model.choice_.expected.values()) == model.choice_.expected["", model.choice_.head]


def digits(classes, each):
    data = kshot.load("digits")["test"]
    rows = torch.cat([torch.arange(o, o + each) for o in data.offsets[:classes].tolist()])
    return data.x[rows, 0].numpy(), data.labels()[rows].numpy()


def test_the_choice_is_of_the_features_of_an_encoder(tmp_path, monkeypatch):
    monkeypatch.setattr(classifier, "has_lite0", lambda: False)
    images, labels = digits(4, 3)
    model = kshot.FewShotClassifier("auto").fit(images, labels)
    assert model.choice_.encoder == "characters"
    assert model.choice_.head in HEADS
    model.save(tmp_path / "m.kshot")
    loaded = kshot.load_model(tmp_path / "m.kshot")
    assert np.allclose(loaded.predict_proba(images), model.predict_proba(images), atol=1e-6)


def test_the_installed_encoders_are_chosen_from():
    pytest.importorskip("efficientnet_lite_pytorch")
    images, labels = digits(3, 4)
    model = kshot.FewShotClassifier("auto").fit(images, labels)
    encoders = {encoder for encoder, _ in model.choice_.expected}
    assert encoders == {"characters", "efficientnet_lite0"}
    assert f"{model.choice_.head} on {model.choice_.encoder} is expected" in model.choice_.reason
    assert model.predict(images[:1]) == labels[:1]


def test_other_learners_choose_nothing():
    x, y = blobs()
    assert kshot.FewShotClassifier("rfs").fit(x, y).choice_ is None


def test_descriptors_do_not_depend_on_order_or_scale():
    x, y = (torch.as_tensor(v) for v in blobs())
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    assert descriptors(x[order], y[order], 4) == pytest.approx(descriptors(x, y, 4))
    assert descriptors(7 * x, 3 - y, 4) == pytest.approx(descriptors(x, y, 4))


def test_a_ranker_is_its_regressions():
    rng = np.random.default_rng(0)
    level, gains = rng.normal(size=3), rng.normal(size=(3, 2))
    trust = np.array([0.5, 0.3])
    ranker = Ranker(["a", "b"], np.array([1.0]), np.array([2.0]), level, gains, trust)
    z = (5.0 - 1.0) / 2.0
    terms = np.array([1, z, z * z])
    by_hand = terms @ level + terms @ gains
    inputs = np.array([[5.0]])
    assert ranker.prior(inputs)[0] == pytest.approx(by_hand)
    shares, counts = np.array([[0.9, 0.5]]), np.array([10])
    common, own = 0.7 - by_hand.mean(), np.array([0.2, -0.2])
    error = (8 / 12) * (4 / 12) / 10
    off = (0.04 / error / 9) ** 2
    added = 0.01 / (0.01 + error) * (0.5 * common + 0.3 * own)
    added += off / (1 + off) * (own - by_hand + by_hand.mean())
    assert ranker.refined(inputs, shares, counts)[0] == pytest.approx(by_hand + added)
    nothing = ranker.refined(inputs, shares, np.array([0]))[0]
    assert nothing == pytest.approx(by_hand)
    again = Ranker.of_dict(ranker.as_dict())
    assert again.prior(inputs) == pytest.approx(ranker.prior(inputs))
    assert expanded(np.zeros((2, 3))).shape == (2, 1 + 3 + 6)


def test_a_gap_counts_by_its_error():
    shares = np.array([[0.6, 0.4]])
    few, many = (evidence(shares, shares, np.array([n]))[1][0, 0] for n in (2, 2000))
    assert 0 < few < 0.01
    assert many > 0.9


def test_the_choice_is_quick():
    x, y = blobs(10, 10, width=64)
    import time

    start = time.perf_counter()
    choose({"": torch.as_tensor(x, dtype=torch.float32)}, torch.as_tensor(y), 10)
    assert time.perf_counter() - start < 20


def test_the_examples_are_embedded_once():
    seen = []
    net = torch.nn.Linear(5, 4).requires_grad_(False)
    net.register_forward_hook(lambda module, args, out: seen.append(len(out)))
    x, y = blobs(3, 5)
    learner = kshot.FewShotClassifier("auto", net).fit(x, y).learner_
    assert learner.pointwise
    assert sum(seen) == len(y)
