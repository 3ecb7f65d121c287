"""The evaluations that end a run, and the baselines beside them."""

from dataclasses import replace

import pytest

import kshot
from kshot.testing import gaussians
from kshot.training.build import make_learner, task_shape
from kshot.training.config import validate
from kshot.training.scores import RAW_BASELINE, evaluate_all


def scored(evaluations, data, learner="protonet", encoder=None):
    """The results of a fresh learner on the test split of `data`."""
    config = validate(
        {
            "seed": 3,
            "dataset": "digits",
            "encoder": encoder or {"name": "mlp", "norm": True},
            "learner": learner,
            "train": {"way": 3, "query": 2},
            "evaluation": [{"way": 3, "query": 2, "episodes": 10} | e for e in evaluations],
        }
    )
    shape = task_shape(config, data)
    method = make_learner(config, shape).eval()
    targets = [(e, data["test"]) for e in config.evaluation]
    return method, evaluate_all(config, shape, method, targets, 7, progress=False)


def test_each_evaluation_has_the_learner_and_its_baselines():
    data = gaussians()
    learner, results = scored([{}, {"shot": 2}], data)
    assert [r.name for r in results] == ["ProtoNet", RAW_BASELINE, "untrained encoder"] * 2
    assert [r.task for r in results] == ["3-way 1-shot"] * 3 + ["3-way 2-shot"] * 3
    assert [r.meta_steps for r in results[:3]] == [7, 0, 0]
    assert [r.training_seeds for r in results[:3]] == [(3,), (), (3,)]
    assert len({r.episode_hash for r in results[:3]}) == 1
    alone = kshot.evaluate(learner, data["test"], way=3, query=2, episodes=10)
    assert results[0].values.tolist() == alone.values.tolist()


def test_the_untrained_encoder_has_the_weights_that_the_run_began_with():
    learner, results = scored([{}], gaussians())
    assert isinstance(learner, kshot.ProtoNet)
    assert results[2].values.tolist() == results[0].values.tolist()


def test_a_stated_protocol_stands_alone():
    _, results = scored([{}, {"transductive": True}], gaussians())
    assert [r.protocol for r in results] == ["inductive"] * 3 + ["transductive"]
    assert results[3].episode_hash == results[0].episode_hash
    assert results[3].normalization == "task"


def test_a_row_for_each_number_of_inner_steps():
    _, results = scored([{"test_steps": [0, 1, 4]}], gaussians(), "maml")
    names = [r.name for r in results]
    assert names[:3] == ["MAML, 0 steps", "MAML, 1 step", "MAML, 4 steps"]
    assert names[3:] == [RAW_BASELINE, "untrained encoder"]
    assert results[0].mean < results[2].mean  # nothing is learned in no steps


def test_two_preparations_of_the_same_examples_are_not_mixed_up():
    """Their fingerprints agree; what is embedded once for the one must not serve the other."""
    data = gaussians()
    clear = data["test"]
    blank = replace(clear, prepare=lambda x: 0 * x, source_fingerprint=clear.fingerprint)
    evaluation = {"way": 3, "query": 2, "episodes": 200}
    config = validate(
        {"dataset": "digits", "learner": "protonet", "encoder": "mlp", "evaluation": [evaluation]}
    )
    shape = task_shape(config, data)
    learner = make_learner(config, shape).eval()
    targets = [(config.evaluation[0], source) for source in (clear, blank)]
    results = evaluate_all(config, shape, learner, targets, 0, progress=False)
    assert results[0].episode_hash == results[3].episode_hash
    assert results[0].mean > 0.9
    assert results[3].mean == pytest.approx(1 / 3)
