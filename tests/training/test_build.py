"""From a configuration to what it names."""

import pytest
import torch

from kshot.errors import ConfigError
from kshot.training.build import pick_device


@pytest.fixture
def three_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)


@pytest.mark.parametrize(("rank", "number"), [(None, 0), ("2", 2), ("4", 1)])
def test_each_process_of_a_machine_takes_its_gpu(three_gpus, monkeypatch, rank, number):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    for name in ("auto", "cuda"):
        assert pick_device(name) == torch.device("cuda", number)


def test_impossible_devices(three_gpus, monkeypatch):
    with pytest.raises(ConfigError, match="choose auto, cpu, cuda or mps"):
        pick_device("gpu")
    monkeypatch.setenv("LOCAL_RANK", "first")
    with pytest.raises(ConfigError, match="LOCAL_RANK='first' is no number"):
        pick_device("cuda")
