"""Options are compared with who takes them, by name and type."""

import pytest

from kshot.errors import ConfigError
from kshot.learners import TaskShape, build_learner
from kshot.nn import build_encoder

SHAPE = TaskShape((4,), 3, 3)


@pytest.mark.parametrize(
    ("learner", "options", "says"),
    [
        ("maml", {"inner_steps": "3"}, "inner_steps of the learner maml.*integer.*got '3'"),
        ("maml", {"inner_steps": True}, "inner_steps.*integer.*got True"),
        ("maml", {"inner_lr": "x"}, "inner_lr.*number.*got 'x'"),
        ("maml", {"first_order": 1}, "first_order.*boolean.*got 1"),
        ("maml", {"reduction": "sum"}, "'mean' or 'sum/shot'"),
        ("protonet", {"scale": "abc"}, "scale.*number.*got 'abc'"),
        ("protonet", {"distanse": "cosine"}, "did you mean 'distance'"),
        ("snail", {"way": 3}, "option of the learner snail"),
    ],
)
def test_options_of_learners(learner, options, says):
    with pytest.raises(ConfigError, match=says):
        build_learner(learner, build_encoder("mlp", (4,), {}), SHAPE, options)


@pytest.mark.parametrize(
    ("encoder", "options", "says"),
    [
        ("conv4", {"channels": True}, "channels of the encoder conv4.*integer.*got True"),
        ("conv4", {"channels": "8"}, "channels.*integer.*got '8'"),
        ("mlp", {"hidden": 40}, "hidden.*got 40"),
        ("none", {"channels": 8}, "option of the encoder none"),
    ],
)
def test_options_of_encoders(encoder, options, says):
    with pytest.raises(ConfigError, match=says):
        build_encoder(encoder, (1, 28, 28), options)


def test_whole_numbers_are_numbers_and_lists_are_sequences():
    learner = build_learner(
        "maml", build_encoder("mlp", (4,), {"hidden": [8]}), SHAPE, {"inner_lr": 1}
    )
    assert learner.head.rule.lr == 1.0
