"""Augmentation is keyed by episode."""

import pytest
import torch

import kshot
from kshot.episodes import augment, random_affine, random_flip
from kshot.errors import EpisodeError


def episode(index):
    digits = kshot.load("digits")["test"]
    return kshot.draw(digits, kshot.EpisodeSpec(3, 2, 2), 0, index)


def test_the_same_episode_is_always_changed_in_the_same_way():
    changes = [random_affine(), random_flip()]
    together = augment(episode([4, 9]), changes)
    alone = augment(episode([9]), changes)
    assert torch.allclose(together.support.x[1], alone.support.x[0], atol=1e-6)
    assert torch.allclose(together.query.x[1], alone.query.x[0], atol=1e-6)
    assert not torch.equal(together.support.x, episode([4, 9]).support.x)
    other = augment(episode([9]), changes, seed=1)
    assert not torch.equal(other.support.x, alone.support.x)


def test_flip_mirrors_some_images_and_leaves_the_others():
    before, after = episode(range(20)), augment(episode(range(20)), [random_flip()])
    x, y = before.support.x.flatten(0, 1), after.support.x.flatten(0, 1)
    same = (x == y).flatten(1).all(1)
    mirrored = (x.flip(-1) == y).flatten(1).all(1)
    assert (same | mirrored).all()
    assert 0.3 < mirrored.float().mean() < 0.7


def test_a_zero_affine_change_is_no_change():
    still = random_affine(degrees=0, translate=0, scale=0)
    e = episode([0])
    assert torch.allclose(augment(e, [still]).support.x, e.support.x, atol=1e-5)


def test_only_images():
    vectors = kshot.draw(kshot.load("digits", flat=True)["test"], kshot.EpisodeSpec(3), 0, [0])
    with pytest.raises(EpisodeError, match="images"):
        augment(vectors, [random_flip()])
