"""The pictures of a run's report."""

import re

import pytest
import torch

import kshot
from kshot.training.config import validate
from kshot.training.pictures import run_report
from kshot.training.state import History


def shown_tasks(folder, **settings):
    """The headings of the tasks in the report of a run on 6 classes of 5 colour images."""
    noise = torch.rand(60, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    classes = [f"class {i}" for i in range(12)]
    labels = [name for name in classes for _ in range(5)]
    data = kshot.Dataset.from_arrays(
        noise, labels, splits={"train": classes[:6], "test": classes[6:]}
    )
    learner = kshot.ProtoNet(kshot.nn.Conv4(3, channels=4))
    config = validate({"dataset": "folder", "learner": "protonet", **settings})
    run_report(folder, config, learner, data, History(), [])
    page = (folder / "report.html").read_text(encoding="utf-8")
    return re.findall(r"An unseen task \(([^)]*)\)", page)


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"evaluation": [{"way": 3, "shot": 2, "query": 2}]}, "3-way 2-shot"),
        ({"evaluation": [{"way": 3, "query": 2}, {"way": 5, "query": 2}]}, "3-way 1-shot"),
        ({"evaluation": [{"way": [2, 4], "shot": [1, 3], "query": 1}]}, "4-way 3-shot"),
        ({"evaluation": [{"way": [2, 50], "shot": "any", "query": 1}]}, "6-way any-shot"),
        ({"evaluation": [{"dataset": "digits", "way": 10, "shot": 9}]}, "6-way 4-shot"),
        ({"train": {"way": 3, "query": 2}}, "3-way 1-shot"),
        ({"train": {"way": 6, "shot": 2, "query": 2}}, "5-way 2-shot"),
    ],
)
def test_the_shown_tasks_are_those_of_the_first_evaluation(tmp_path, settings, shown):
    assert shown_tasks(tmp_path, **settings) == [shown, shown]
