"""glyphs, digits and sinusoid are what they say."""

import numpy as np
import pytest
import torch

import kshot
from kshot.datasets import glyphs as renderer


@pytest.fixture(scope="module")
def glyphs():
    return kshot.load("glyphs")


def test_glyphs_has_enough_classes_of_twenty(glyphs):
    counts = {name: len(split.sizes) for name, split in glyphs.splits.items()}
    assert sum(counts.values()) >= 2000
    assert all(set(split.sizes) == {20} for split in glyphs.splits.values())
    assert min(counts["val"], counts["test"]) >= 200


def test_glyphs_splits_share_no_script_and_no_shape(glyphs):
    scripts = {
        name: {str(c).split("/")[0] for c in split.classes} for name, split in glyphs.splits.items()
    }
    assert not scripts["train"] & scripts["test"]
    assert not scripts["train"] & scripts["val"]
    assert not scripts["val"] & scripts["test"]
    # The turns of one letter are in one split.
    letters = {n: {str(c).split("@")[0] for c in s.classes} for n, s in glyphs.splits.items()}
    assert not letters["train"] & (letters["val"] | letters["test"])


def test_latin_greek_and_cyrillic_a_are_one_class(glyphs):
    names = {str(c) for split in glyphs.splits.values() for c in split.classes}
    assert "latin/U+0041" in names
    assert not {n for n in names if n.endswith(("U+0391", "U+0410"))}


def test_glyphs_pixels_fail_at_twenty_ways(glyphs):
    result = kshot.evaluate(
        kshot.NearestNeighbour(), glyphs["test"], way=20, shot=1, query=5, episodes=200
    )
    assert 0.2 < result.mean <= 0.40


def test_glyphs_are_ink_on_black(glyphs):
    x = glyphs["test"].x
    assert x.dtype == torch.uint8
    assert x.shape[1:] == (1, 28, 28)
    assert 0.05 < x.float().mean() / 255 < 0.25
    corners = x[..., [0, 0, -1, -1], [0, -1, 0, -1]].float()
    assert corners.mean() < 2


def test_rendering_repeats_exactly(glyphs):
    again = renderer.render()
    split = np.array(again.split) == "test"
    images = again.images.reshape(-1, 20, 28, 28)[split]
    assert np.array_equal(images.reshape(-1, 28, 28), glyphs["test"].x[:, 0].numpy())


def test_digits_have_glyphs_polarity():
    digits = kshot.load("digits")["test"]
    assert len(digits.sizes) == 10
    assert sum(digits.sizes) == 1797
    assert digits.x[:, 0, 0].max() == 0
    assert 0.05 < digits.x.float().mean() / 255 < 0.25
    flat = kshot.load("digits", flat=True)["test"]
    assert flat.x.shape == (1797, 64)
    assert flat.x.max() == 1


def test_sinusoids_have_mamls_ranges():
    waves = kshot.load("sinusoid")["train"]
    spec = kshot.EpisodeSpec(shot=10, query=10)
    e = kshot.draw(waves, spec, 0, range(4000))
    y = torch.cat([e.support.y, e.query.y], 1)
    x = torch.cat([e.support.x, e.query.x], 1)
    assert x.abs().max() <= 5
    assert 4.9 < y.abs().max() <= 5
    # Predicting 0 costs E[A^2] / 2, about 4.25 (papers' bound).
    assert (y**2).mean() == pytest.approx(4.25, abs=0.2)
    function = waves.functions(kshot.episodes.sampler.episode_key(waves, spec, 0), range(4000))
    assert torch.allclose(function(x), y, atol=1e-5)


def test_sinusoid_splits_draw_other_tasks():
    data = kshot.load("sinusoid")
    spec = kshot.EpisodeSpec(shot=5)
    a, b = (kshot.draw(data[s], spec, 0, [0]).support.x for s in ("train", "test"))
    assert not torch.equal(a, b)
