"""Features that are embedded once: in memory for a run, on disk for encoders that stay."""

import pytest
import torch
from torch import nn

import kshot
from kshot.evaluation import embedded, score_episodes
from kshot.evaluation.embedding import embed_split
from kshot.testing import gaussians


class Counting(nn.Module):
    """A frozen linear map that counts the rows it has seen."""

    def __init__(self, factor=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.factor, self.seen = nn.Linear(8, 6).requires_grad_(False), factor, 0

    def forward(self, x):
        self.seen += len(x)
        return self.factor * self.layer(x.flatten(1))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KSHOT_CACHE", str(tmp_path))
    return tmp_path / "features"


def frozen(split):
    return kshot.FrozenEpisodes(split, kshot.EpisodeSpec(5, 1, 3), 200)


def test_a_frozen_encoder_embeds_a_split_once_for_all_runs(own_cache):
    split = gaussians()["test"]
    first, again = Counting(), Counting()
    scores = score_episodes(kshot.ProtoNet(first), frozen(split))["accuracy"]
    assert first.seen >= sum(split.sizes)
    assert len(list(own_cache.iterdir())) == 1
    assert score_episodes(kshot.ProtoNet(again), frozen(split))["accuracy"].tolist() == (
        scores.tolist()
    )
    assert again.seen < 20  # the check that an example is embedded by itself, and the probe


def test_few_episodes_use_features_that_are_there():
    split = gaussians()["test"]
    learner, few = kshot.ProtoNet(Counting()), sum(split.sizes) // 2
    assert embedded(learner, split, few)[0] is learner
    embedded(learner, split)
    twin, features = embedded(learner, split, few)
    assert isinstance(twin.encoder, nn.Identity)
    assert torch.allclose(features.x, learner.encoder(split.x))


def test_other_weights_or_data_are_other_features(own_cache):
    split = gaussians()["test"]
    learner = kshot.ProtoNet(Counting())
    before = embed_split(learner, split)
    with torch.no_grad():
        learner.encoder.layer.weight.mul_(2)
    assert not torch.allclose(embed_split(learner, split), before)
    shifted = split.with_x(split.x + 1)  # which keeps the fingerprint
    assert torch.allclose(embed_split(learner, shifted), learner.encoder(shifted.x))
    assert len(list(own_cache.iterdir())) == 3


def test_what_the_layers_do_not_tell_is_noticed():
    split = gaussians()["test"]
    embed_split(kshot.ProtoNet(Counting()), split)
    other = Counting(factor=3.0)  # the same layers and weights
    assert torch.allclose(embed_split(kshot.ProtoNet(other), split), other(split.x))


def test_a_damaged_file_is_made_again(own_cache):
    split, learner = gaussians()["test"], kshot.ProtoNet(Counting())
    features = embed_split(learner, split)
    (file,) = own_cache.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(embed_split(learner, split), features)
    assert torch.equal(embed_split(learner, split), features)


def test_an_encoder_that_is_trained_leaves_nothing_on_the_disk(own_cache):
    learner = kshot.ProtoNet(kshot.nn.MLP(8)).eval()
    embedded(learner, gaussians()["test"])
    assert not own_cache.exists()


def test_a_cache_that_cannot_be_written_is_a_warning(own_cache):
    own_cache.write_text("a file in the way")
    split, learner = gaussians()["test"], kshot.ProtoNet(Counting())
    with pytest.warns(UserWarning, match="not kept for the next time"):
        assert torch.allclose(embed_split(learner, split), learner.encoder(split.x))
