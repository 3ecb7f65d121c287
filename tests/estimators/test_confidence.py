"""Probabilities that can be believed, and strangers."""

import warnings

import numpy as np
import pytest
import torch

import kshot
from kshot.errors import InputError
from kshot.estimators.leave_out import few_of_each, leave_class_out, leave_one_out
from kshot.evaluation.calibration import calibrate
from kshot.evaluation.confidence import reliability
from kshot.testing import gaussians
from tests.estimators.test_classifier import blobs


@pytest.mark.parametrize("name", ["protonet", "rfs", "nearest_neighbour", "r2d2"])
def test_leave_one_out_is_a_fit_without_it(name):
    x, y = blobs(3, 4)
    model = kshot.FewShotClassifier(name).fit(x, y)
    rows, found = leave_one_out(model.behind, model.support_.features, model.labels_, 3)
    assert rows.tolist() == [*range(12)]
    for i in (0, 5, 11):
        rest = np.arange(len(y)) % 4 != i % 4  # with it goes one of each other class
        alone = kshot.FewShotClassifier(name).fit(x[rest], y[rest])
        assert torch.allclose(found[i].double(), alone._logits(x[i : i + 1])[0], atol=1e-4)


def test_leaving_out_asks_each_example_once():
    x, y = blobs(4, 6)
    order = np.random.default_rng(0).permutation(24)[:-3]
    x, y = x[order], np.where(y[order] == 3, 4, y[order])
    keep = np.append(np.flatnonzero(y != 4), np.flatnonzero(y == 4)[:1])  # one example is alone
    model = kshot.FewShotClassifier().fit(x[keep], y[keep])
    rows, found = leave_one_out(model.behind, model.support_.features, model.labels_, 4)
    assert rows.tolist() == np.flatnonzero(y[keep] != 4).tolist()
    assert len(found) == len(rows)
    assert (found.argmax(1) == model.labels_[rows]).float().mean() > 0.8
    few, _ = leave_one_out(model.behind, model.support_.features, model.labels_, 4, most=5)
    assert len(few) == 5


def test_what_is_left_out_of_many_has_each_class_in_its_share():
    """Rows at even distances are all of one class where classes stand in turns."""
    y = torch.arange(3000) % 3
    x = torch.nn.functional.one_hot(y, 3).float()
    model = kshot.FewShotClassifier().fit(x.numpy(), y.numpy())
    rows, found = leave_one_out(model.behind, model.support_.features, y, 3, most=300)
    assert torch.bincount(y[rows]).tolist() == [100, 100, 100]
    assert (found.argmax(1) == y[rows]).all()
    few = few_of_each(torch.tensor([0] * 90 + [1] * 3 + [2] * 7), 12)
    assert torch.bincount(torch.tensor([0] * 90 + [1] * 3 + [2] * 7)[few]).tolist() == [5, 3, 4]


def test_a_class_does_not_get_rarer_where_it_is_asked_for():
    """Each example alone left out, logistic regression on weak features was never right."""
    x, y = blobs(2, 10)
    model = kshot.FewShotClassifier("rfs").fit(0.01 * x, y)
    rows, found = leave_one_out(model.behind, model.support_.features, model.labels_, 2)
    assert (found.argmax(1) == model.labels_[rows]).float().mean() > 0.9


def test_leave_class_out_never_answers_the_class():
    x, y = blobs(3, 4)
    model = kshot.FewShotClassifier().fit(x, y)
    found = leave_class_out(model.behind, model.support_.features, model.labels_, 3)
    assert found.shape == (12, 3)
    assert (found.argmax(1) != model.labels_).all()
    rest = kshot.FewShotClassifier().fit(x[y > 0], y[y > 0])
    assert torch.allclose(found[:4, 1:].double(), rest._logits(x[:4]), atol=1e-5)


def far_too_sure(x, y, **options):
    """Distances in a scale in which every answer is certain."""
    return kshot.FewShotClassifier(**options).fit(5 * x, y)


def test_temperature_from_the_examples_themselves():
    x, y = blobs(4, 12)
    x = 0.5 * x + 0.5 * blobs(4, 12, seed=5)[0]
    x += np.random.default_rng(0).normal(size=x.shape)
    other = blobs(4, 200, seed=9)[0] * 0.7 + np.random.default_rng(1).normal(size=(800, 5))
    truth = np.repeat(np.arange(4), 200)
    plain, fitted = far_too_sure(x, y), far_too_sure(x, y, calibrate=True)
    assert plain.confidence_.temperature == 1
    assert fitted.confidence_.temperature > 5
    errors = [
        reliability(torch.tensor(np.log(m.predict_proba(5 * other) + 1e-12)), torch.tensor(truth))
        for m in (plain, fitted)
    ]
    assert errors[1].error < 0.5 * errors[0].error
    assert (plain.predict(5 * other) == fitted.predict(5 * other)).all()


def test_strangers_are_told_from_the_support():
    x, y = blobs(5, 8, width=8)
    model = kshot.FewShotClassifier(false_accepts=0.05).fit(x, np.array([*"abcde"])[y])
    strangers = np.random.default_rng(0).normal(size=(50, 8)) - 3
    assert (model.predict(strangers) == "unknown").mean() > 0.9
    assert (model.predict(x) != "unknown").mean() > 0.7
    numbers = kshot.FewShotClassifier(false_accepts=0.05, unknown_label=-1).fit(x, y)
    assert set(numbers.predict(strangers)) <= {-1, 0, 1, 2, 3, 4}


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    learner = kshot.ProtoNet(kshot.nn.MLP(8))
    kshot.meta_train(learner, gaussians(), steps=20, query=5, progress=False)
    return learner


def test_a_calibration_is_used_by_way_and_shot(trained, tmp_path):
    calibration = calibrate(trained, gaussians()["test"], episodes=30)
    inside = calibration.at(calibration.ways[0], calibration.shots[0])
    assert inside.temperature == pytest.approx(calibration.temperatures[0, 0])
    assert calibration.at(1000, 1000).temperature == pytest.approx(calibration.temperatures[-1, -1])
    between = calibration.at(calibration.ways[0], 1.5).temperature
    low, high = sorted(calibration.temperatures[0, :2])
    assert low <= between <= high
    assert inside.false_rejects(0.05) < 0.3
    again = type(calibration).of_dict(calibration.as_dict())
    assert again.at(3, 2).threshold(0.1) == pytest.approx(calibration.at(3, 2).threshold(0.1))


def test_too_few_examples_are_said():
    x, y = blobs(3, 1)
    with pytest.warns(UserWarning, match=r"rests on 0 examples.*no class has a second"):
        assert kshot.FewShotClassifier(calibrate=True).fit(x, y).confidence_.temperature == 1
    x, y = blobs(3, 3)
    with pytest.warns(UserWarning, match="rests on 9 examples"):
        kshot.FewShotClassifier(calibrate=True).fit(x, y)
    x, y = blobs(4, 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kshot.FewShotClassifier(calibrate=True).fit(x, y)


@pytest.mark.parametrize("share", [0, 1, -0.1, 2])
def test_impossible_shares(share):
    x, y = blobs()
    with pytest.raises(InputError, match="between 0 and 1"):
        kshot.FewShotClassifier(false_accepts=share).fit(x, y)


def test_strangers_from_two_classes_cannot_be_known():
    x, y = blobs(2)
    with pytest.raises(InputError, match="3 classes"):
        kshot.FewShotClassifier(false_accepts=0.05).fit(x, y)


def test_the_expected_calibration_error_by_hand():
    logits = torch.log(torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.3, 0.7]]))
    labels = torch.tensor([0, 1, 0, 1])
    # 0.9: half right; 0.6 and 0.7 in one bin each: right.
    by_hand = 0.5 * abs(0.9 - 0.5) + 0.25 * abs(0.6 - 1) + 0.25 * abs(0.7 - 1)
    assert reliability(logits, labels).error == pytest.approx(by_hand, abs=1e-6)


def test_confidence_travels_in_the_file(tmp_path):
    x, y = blobs(5, 8, width=8)
    model = kshot.FewShotClassifier(false_accepts=0.05).fit(x, np.array([*"abcde"])[y])
    model.save(tmp_path / "m.kshot")
    loaded = kshot.load_model(tmp_path / "m.kshot")
    assert loaded.confidence_ == model.confidence_
    assert np.array_equal(loaded.predict_proba(x), model.predict_proba(x))
    assert loaded.predict(x - 9).tolist() == model.predict(x - 9).tolist()
