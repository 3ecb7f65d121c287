"""Omniglot's protocols, rotations and pixels are those of the papers."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import kshot
from kshot.datasets import omniglot
from kshot.errors import ConfigError, DataError

ROTATIONS = ("classes", "train", "class-per-task", "task", "none")
SIZES = {"images_background": (5, 3, 3, 3, 3, 3, 4), "images_evaluation": (3, 4)}
"""Characters in each alphabet of the small copy."""

DRAWERS = 4


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A copy of nine small alphabets by four drawers, laid out as the publisher's."""
    monkeypatch.setattr(omniglot, "DRAWERS", DRAWERS)
    parts = {part: (sum(sizes), "md5:0") for part, sizes in SIZES.items()}
    monkeypatch.setattr(omniglot, "PARTS", parts)
    generator = np.random.default_rng(0)
    for part, sizes in SIZES.items():
        for alphabet, size in enumerate(sizes):
            for character in range(1, size + 1):
                place = (
                    tmp_path / "loose" / part / f"{part[7]}{alphabet}" / f"character{character:02d}"
                )
                place.mkdir(parents=True)
                for drawer in range(1, DRAWERS + 1):
                    noise = generator.random((28, 28)) < 0.9
                    Image.fromarray(noise).save(place / f"0001_{drawer:02d}.png")
    return tmp_path / "loose"


def numbered(split):
    """The same split, whose examples are their own numbers: class times drawers, plus drawer."""
    return split.with_x(torch.arange(sum(split.sizes))[:, None].float())


def drawn(split, way, episodes, shot=1, query=1):
    """For each episode the numbers of its support and query examples."""
    spec = kshot.EpisodeSpec(way, shot, query)
    episode = kshot.draw(numbered(split), spec, 0, range(episodes))
    return [part.x[..., 0].long() for part in (episode.support, episode.query)]


def prints(data):
    return {name: split.fingerprint for name, split in data.splits.items()}


def test_archives_and_folders_give_the_same_store(small, cache, tmp_path, monkeypatch, pack):
    (tmp_path / "omniglot").mkdir()
    for part in SIZES:
        (tmp_path / "alone").mkdir(exist_ok=True)
        pack(small / part, tmp_path / "alone" / f"{part}.zip")  # without the outer folder
    for part in SIZES:
        shell = tmp_path / f"shell {part}"
        shell.mkdir()
        (small / part).rename(shell / part)
        pack(shell, tmp_path / "omniglot" / f"{part}.zip")  # with it, as the publisher's
        (shell / part).rename(small / part)
    found = []
    for number, path in enumerate((small, tmp_path, tmp_path / "omniglot", tmp_path / "alone")):
        monkeypatch.setenv("KSHOT_CACHE", str(cache / str(number)))
        found.append(prints(kshot.load("omniglot", protocol="one-shot", path=str(path))))
    assert found[0] == found[1] == found[2] == found[3]


def test_kshot_data_is_searched(small, cache, monkeypatch):
    assert not kshot.datasets.entry("omniglot").present()
    small.rename(small.with_name("omniglot"))
    monkeypatch.setenv("KSHOT_DATA", str(small.parent))
    assert kshot.datasets.entry("omniglot").present()
    data = kshot.load("omniglot", protocol="background-evaluation")
    assert [len(split.classes) for split in data.splits.values()] == [9, 15, 7]


def test_the_smallest_alphabets_are_meta_validation(small, cache):
    data = kshot.load("omniglot", protocol="background-evaluation", path=str(small))
    assert {str(c).split("/")[0] for c in data["train"].classes} == {"b0", "b6"}
    assert {str(c).split("/")[0] for c in data["test"].classes} == {"e0", "e1"}


def test_one_shot_tasks_stay_in_an_alphabet_with_one_drawer_each_side(small, cache):
    split = kshot.load("omniglot", protocol="one-shot", path=str(small))["train"]
    support, query = drawn(split, 4, 50)
    for numbers in (support, query):
        assert all(len(set(row.tolist())) == 1 for row in numbers % DRAWERS)
    assert (support[:, 0] % DRAWERS != query[:, 0] % DRAWERS).all()
    for row in support // DRAWERS:
        assert len({str(split.classes[c]).split("/")[0] for c in row}) == 1


def test_turns_are_turns(small, cache):
    options = {"protocol": "background-evaluation", "path": str(small)}
    plain = kshot.load("omniglot", **options)["test"]
    turned = kshot.load("omniglot", **options, rotations="classes")["test"]
    assert len(turned.classes) == 4 * len(plain.classes)
    for k in range(4):
        assert str(turned.classes[8 + k]) == f"{plain.classes[2]}/rot{90 * k:03d}"
        rows = slice((8 + k) * DRAWERS, (9 + k) * DRAWERS)
        original = plain.examples(slice(2 * DRAWERS, 3 * DRAWERS))
        assert torch.equal(turned.examples(rows), torch.rot90(original, k, (-2, -1)))


def test_ink_is_bright_or_dark(small, cache):
    options = {"protocol": "background-evaluation", "path": str(small)}
    bright, dark = (
        kshot.load("omniglot", ink=ink, **options)["test"].examples(slice(None))
        for ink in ("bright", "dark")
    )
    assert bright.mean() == pytest.approx(0.1, abs=0.02)
    assert torch.equal(bright, 1 - dark)


def test_every_convention_has_its_own_episodes(small, cache):
    options = {"protocol": "background-evaluation", "path": str(small)}
    data = [kshot.load("omniglot", rotations=r, **options) for r in ROTATIONS]
    assert len({d["train"].fingerprint for d in data}) == len(ROTATIONS)


def test_an_incomplete_copy_is_refused(small, cache):
    next(small.rglob("*_03.png")).unlink()
    with pytest.raises(DataError, match=r"95 images of 24 characters, but .* 24 characters of 4"):
        kshot.load("omniglot", path=str(small))
    assert not list(cache.glob("*"))


def test_a_copy_of_the_wrong_size_is_refused(small, cache, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("KSHOT_CACHE", str(cache))
    with pytest.raises(DataError, match="images_background has 964 characters of 20"):
        kshot.load("omniglot", path=str(small))


def test_half_a_copy_is_refused(small, cache):
    (small / "images_evaluation").rename(small / "elsewhere")
    with pytest.raises(DataError, match=r"none of .*images_evaluation.zip"):
        kshot.load("omniglot", path=str(small))


def test_a_single_archive_is_refused(small, cache, tmp_path, pack):
    archive = pack(small / "images_background", tmp_path / "images_background.zip")
    with pytest.raises(DataError, match=r"a file, but .* and images_evaluation: give the folder"):
        kshot.load("omniglot", path=str(archive))


def test_another_copy_has_its_own_pixels(small, cache):
    other = shutil.copytree(small, small.with_name("other"))
    Image.new("1", (28, 28)).save(next((other / "images_evaluation").rglob("*.png")))
    x, y = (
        kshot.load("omniglot", protocol="background-evaluation", path=str(path))["test"].x
        for path in (small, other)
    )
    assert not torch.equal(x, y)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"protocol": "vinyal"}, "did you mean 'vinyals'"),
        ({"rotations": "clases"}, "did you mean 'classes'"),
        ({"ink": "red"}, "neither 'bright' nor 'dark'"),
        ({"resize": "cubic"}, "resize='cubic' is none of"),
        ({"sise": 28}, "did you mean 'size'"),
        ({"seed": 1}, "seed=1 has no meaning for protocol='vinyals'"),
        ({"protocol": "random-1200", "seed": -1}, "seed=-1: give a whole number"),
    ],
)
def test_unknown_options(cache, options, says):
    with pytest.raises(ConfigError, match=says):
        kshot.load("omniglot", **options)


@pytest.fixture(scope="module")
def real(real_data):
    """Loads the real data with these options."""
    if not (real_data / "omniglot").exists():
        pytest.skip(f"{real_data} has no omniglot")
    return lambda **options: kshot.load("omniglot", **options)


def characters(split):
    return {str(label).partition("/rot")[0] for label in split.classes}


@pytest.mark.data
@pytest.mark.parametrize(
    ("protocol", "counts"),
    [
        ("vinyals", (1028, 172, 423)),
        ("random-1200", (1100, 100, 423)),
        ("background-evaluation", (883, 81, 659)),
        ("one-shot", (883, 81, 659)),
    ],
)
def test_real_counts(real, protocol, counts):
    data = real(protocol=protocol, rotations="none")
    assert tuple(len(split.classes) for split in data.splits.values()) == counts
    assert len(set().union(*map(characters, data.splits.values()))) == 1623
    assert all(set(split.sizes) == {20} for split in data.splits.values())


@pytest.mark.data
def test_real_counts_with_turns(real):
    for rotations, counts in [
        ("classes", (4112, 688, 1692)),
        ("train", (4112, 172, 423)),
        ("class-per-task", (4112, 688, 1692)),
    ]:
        data = real(rotations=rotations)
        assert tuple(len(split.classes) for split in data.splits.values()) == counts
        held = [characters(split) for split in data.splits.values()]
        assert sum(map(len, held)) == len(set().union(*held)) == 1623


@pytest.mark.data
def test_real_random_split_follows_its_seed(real):
    first, again, other = (
        characters(real(protocol="random-1200", seed=seed)["test"]) for seed in (0, 0, 1)
    )
    assert first == again != other


@pytest.mark.data
def test_real_pixels(real):
    bright, dark, grey = (
        real(rotations="none", **options)["train"].examples(slice(0, 4000))
        for options in ({}, {"ink": "dark"}, {"resize": "lanczos"})
    )
    assert bright.shape == (4000, 1, 28, 28)
    assert bright.mean() == pytest.approx(0.078, abs=0.005)
    assert dark.mean() == pytest.approx(0.922, abs=0.005)
    assert bright.unique().tolist() == [0, 1]
    assert len(grey.unique()) > 100
    assert grey.mean() == pytest.approx(0.078, abs=0.01)  # what overshoots is cut off at white


@pytest.mark.data
def test_real_tasks_never_show_two_turns_of_a_character(real):
    split = real(protocol="random-1200")["train"]
    support, _ = drawn(split, 20, 200)
    turns = set()
    for row in support // 20:
        names = [str(split.classes[c]).partition("/rot") for c in row]
        assert len({character for character, _, _ in names}) == 20
        turns |= {turn for _, _, turn in names}
    assert turns == {"000", "090", "180", "270"}


@pytest.mark.data
def test_real_tasks_turn_all_their_classes_alike(real):
    split = real(rotations="task")["test"]
    support, _ = drawn(split, 20, 50)
    turns = [{str(split.classes[c])[-3:] for c in row} for row in support // 20]
    assert all(len(turn) == 1 for turn in turns)
    assert len(set().union(*turns)) == 4


@pytest.mark.data
def test_real_one_shot_tasks(real):
    split = real(protocol="one-shot")["test"]
    support, query = drawn(split, 20, 50)
    for row in support // 20:
        assert len({str(split.classes[c]).split("/")[0] for c in row}) == 1
    assert all(len(set(row.tolist())) == 1 for row in support % 20)
    assert all(len(set(row.tolist())) == 1 for row in query % 20)
    assert (support[:, 0] % 20 != query[:, 0] % 20).all()


@pytest.mark.data
def test_real_characters_stay_themselves(real):
    split = real(rotations="none")["test"]
    near = kshot.evaluate(kshot.NearestNeighbour(), split, way=5, shot=1, episodes=300)
    assert 0.35 < near.mean < 0.55
