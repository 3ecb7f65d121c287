"""Augmentation is keyed by episode."""

import pytest
import torch

import kshot
from kshot.episodes import augment, color_jitter, random_affine, random_crop, random_flip
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


@pytest.mark.parametrize("changes", [["flip"], "flip", random_flip(), [random_flip(), 3]])
def test_only_functions(changes):
    with pytest.raises(EpisodeError, match=r"give a list of functions .*\[random_flip\(\)\]"):
        augment(episode([0]), changes)


def uniforms(rows, *given):
    """Uniform numbers for each image; those that a change does not use are 0.5."""
    return torch.tensor([*given, *[0.5] * (4 - len(given))]).repeat(rows, 1)


def test_crop_shifts_and_fills_with_zeros():
    x = torch.rand(2, 3, 6, 5)
    crop = random_crop(padding=2)
    assert torch.equal(crop(x, uniforms(2, 0.5, 0.5)), x)
    up_left = crop(x, uniforms(2, 0.99, 0.7))  # two rows down, one column to the right
    assert torch.equal(up_left[:, :, :4, :4], x[:, :, 2:, 1:])
    assert not up_left[:, :, 4:].any()
    assert not up_left[:, :, :, 4:].any()
    corner = crop(x, uniforms(2, 0.0, 0.0))
    assert torch.equal(corner[:, :, 2:, 2:], x[:, :, :4, :3])


def test_crop_cuts_every_window_of_its_own_image():
    x = torch.arange(500.0).reshape(500, 1, 1, 1).expand(500, 1, 3, 3) + 1
    cut = random_crop(padding=1)(x, torch.rand(500, 4, generator=torch.Generator().manual_seed(0)))
    inside = cut != 0
    assert torch.equal(cut[inside], x[inside])
    assert len({tuple(i) for i in inside.flatten(1).tolist()}) == 9


def test_jitter_changes_what_it_says():
    torch.manual_seed(0)
    x = 0.3 + 0.4 * torch.rand(2, 3, 5, 5)

    def jitter(**strengths):
        off = {"brightness": 0, "contrast": 0, "saturation": 0}
        return color_jitter(**{**off, **strengths})(x, uniforms(2, 0.75, 0.75, 0.25))

    grey = (x * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    mean = grey.mean((2, 3), keepdim=True)
    assert torch.allclose(jitter(), x)
    assert torch.allclose(jitter(brightness=0.4), x * 1.2)
    assert torch.allclose(jitter(contrast=0.4), mean + 1.2 * (x - mean))
    assert torch.allclose(jitter(saturation=0.4), grey + 0.8 * (x - grey))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_jitter_stays_between_0_and_1_and_leaves_its_input(channels):
    x = torch.rand(50, channels, 4, 4)
    before = x.clone()
    y = color_jitter(brightness=1, contrast=1, saturation=1)(x, torch.rand(50, 4))
    assert torch.equal(x, before)
    assert 0 <= y.min() < y.max() <= 1
    assert not torch.allclose(y, x)


def test_one_channel_has_no_saturation():
    x = torch.rand(50, 1, 4, 4)
    y = color_jitter(brightness=0, contrast=0)(x, torch.rand(50, 4))
    assert torch.allclose(x, y, atol=1e-6)


def test_padding_does_not_change_the_changes():
    digits = kshot.load("digits")["test"]
    changes = [random_crop(), color_jitter(), random_flip()]
    uneven = kshot.EpisodeSpec((2, 5), "any", 3)
    together = augment(kshot.draw(digits, uneven, 0, range(4)), changes)
    assert together.support.mask is not None
    for i in range(4):
        alone = augment(kshot.draw(digits, uneven, 0, [i]), changes)
        assert torch.allclose(together.support.x[i, together.support.real[i]], alone.support.x[0])
        assert torch.allclose(together.query.x[i, together.query.real[i]], alone.query.x[0])


def test_episodes_without_queries_are_augmented():
    episode = kshot.draw(kshot.load("glyphs")["test"], kshot.EpisodeSpec(5, 1, 0), 0, [0, 1])
    found = augment(episode, [random_affine()])
    assert found.query.size == 0
    assert not torch.equal(found.support.x, episode.support.x)
