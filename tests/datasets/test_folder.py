"""Anyone's folders of images become splits, or say what is wrong with them."""

import os
import subprocess
import sys
from itertools import chain

import pytest
import torch
from PIL import Image

import kshot
from kshot.errors import ConfigError, DataError

TEN = [f"class{c}/{i}.png" for c in range(10) for i in range(3)]


def classes(data):
    return {name: list(split.classes) for name, split in data.splits.items()}


def prints(data):
    return [split.fingerprint for split in data.splits.values()]


def test_classes_are_drawn(cache, tmp_path, make_images):
    path = str(make_images(tmp_path / "mine", *TEN))
    data, same, other = (kshot.load("folder", path=path, seed=seed) for seed in (0, 0, 1))
    assert [len(c) for c in classes(data).values()] == [6, 2, 2]
    assert classes(data) == classes(same) != classes(other)
    assert prints(data) == prints(same) != prints(other)
    assert data["train"].x.shape == (30, 3, 84, 84)
    assert len(list(cache.iterdir())) == 1


def test_options_reach_the_images(cache, tmp_path, make_images):
    path = str(make_images(tmp_path / "mine", *TEN))
    data = kshot.load(
        "folder", path=path, size=8, channels=1, resize="nearest", splits={"test": 1.0}
    )
    assert list(data.splits) == ["test"]
    x = data["test"].examples(slice(None))
    assert x.shape == (30, 1, 8, 8)
    with Image.open(tmp_path / "mine" / "class3" / "1.png") as image:
        expected = torch.tensor(list(image.convert("L").tobytes())).view(8, 8) / 255
    assert torch.allclose(x[10, 0], expected)


@pytest.mark.parametrize("val", ["val", "valid", "validation", "dev", "Val", "VALIDATION"])
def test_split_folders(cache, tmp_path, make_images, val):
    names = [
        f"{s}/{c}/{i}.png" for s, c in (("train", "a"), ("train", "b"), (val, "c")) for i in "12"
    ]
    data = kshot.load("folder", path=str(make_images(tmp_path / "mine", *names)))
    assert classes(data) == {"train": ["a", "b"], "val": ["c"]}


def test_a_single_split_folder(cache, tmp_path, make_images):
    mine = make_images(tmp_path / "mine", *(f"test/{c}/{i}.png" for c in "ab" for i in "12"))
    assert classes(kshot.load("folder", path=str(mine))) == {"test": ["a", "b"]}


def test_archive_and_folder_agree(cache, tmp_path, make_images, pack):
    loose = make_images(tmp_path / "top" / "mine", *TEN, "class-a/1.png", "class-a/2.png")
    alone = pack(loose, tmp_path / "alone.zip")
    wrapped = pack(tmp_path / "top", tmp_path / "wrapped.zip")
    paths = (loose, tmp_path / "top", alone, wrapped)
    found = [prints(kshot.load("folder", path=str(path))) for path in paths]
    assert found[0] == found[1] == found[2] == found[3]
    assert len(list(cache.iterdir())) == 4


def test_a_changed_file_is_noticed(cache, tmp_path, make_images):
    mine = make_images(tmp_path / "mine", *TEN)
    options = {"path": str(mine), "splits": {"test": 1}}
    before = prints(kshot.load("folder", **options))
    os.utime(mine / "class0" / "0.png", ns=(1, 1))
    assert prints(kshot.load("folder", **options)) == before
    make_images(mine, "class0/0.png")
    changed = prints(kshot.load("folder", **options))
    assert changed != before
    make_images(mine, "class0/9.png")
    assert prints(kshot.load("folder", **options)) not in (before, changed)


def test_a_new_photo_leaves_the_episodes_of_other_splits(cache, tmp_path, make_images):
    names = [f"{c}/{i}.png" for c in ("Train/a", "Train/b", "TEST/c", "TEST/d") for i in "12"]
    mine = make_images(tmp_path / "mine", *names)
    train, test = prints(kshot.load("folder", path=str(mine), size=8))
    make_images(mine, "Train/b/3.png")
    again = prints(kshot.load("folder", path=str(mine), size=8))
    assert again[0] != train
    assert again[1] == test
    (mine / "TEST" / "c" / "1.png").unlink()
    assert prints(kshot.load("folder", path=str(mine), size=8, min_examples=1))[1] != test


def test_files_of_other_kinds_are_reported_at_each_load(cache, tmp_path, make_images):
    mine = make_images(tmp_path / "mine", *TEN)
    for name in ("class0/b.HEIC", "class1/c.heic", "class2/d.avif"):
        (mine / name).write_bytes(b"x")
    for _ in range(2):
        with pytest.warns(
            UserWarning, match=r"3 file.* \(.heic: 2, .avif: 1\) .*class0/b.HEIC: save photos as"
        ):
            assert kshot.load("folder", path=str(mine))["train"].x.shape[0] == 30


@pytest.mark.filterwarnings("error")
def test_other_files_are_ignored(cache, tmp_path, make_images):
    mine = make_images(tmp_path / "mine", *TEN, "class0/.hidden.png", ".git/a/b/c.png")
    (mine / "README.txt").write_text("about")
    (mine / "class0" / "Thumbs.db").write_text("x")
    (mine / "class1" / "0.png").rename(mine / "class1" / "0.PNG")
    assert kshot.load("folder", path=str(mine))["train"].x.shape[0] == 30


def test_small_classes_are_left_out(cache, tmp_path, make_images):
    path = str(make_images(tmp_path / "mine", *TEN, "lonely/1.png", "sad/1.png"))
    with pytest.warns(UserWarning, match=r"2 class.*fewer than 2 .*lonely \(1\), sad \(1\)"):
        data = kshot.load("folder", path=path)
    assert sorted(chain(*classes(data).values())) == [f"class{c}" for c in range(10)]
    assert "lonely" in chain(*classes(kshot.load("folder", path=path, min_examples=1)).values())
    with pytest.raises(DataError, match=r"of 12 class.*, 0 have at least 4"):
        kshot.load("folder", path=path, min_examples=4)


def test_a_split_whose_classes_are_all_too_small(cache, tmp_path, make_images):
    names = [f"train/{c}/{i}.png" for c in "ab" for i in "12"]
    mine = make_images(tmp_path / "mine", *names, "val/c/1.png")
    says = "of 2 classes with at least min_examples=2 images, none is left for the split 'val'"
    with pytest.warns(UserWarning, match="left out"), pytest.raises(DataError, match=says):
        kshot.load("folder", path=str(mine))


def test_unreadable_images(cache, tmp_path, make_images):
    mine = make_images(tmp_path / "mine", *TEN)
    (mine / "class0" / "1.png").write_bytes(b"")
    for name in "012":
        (mine / "class1" / f"{name}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"4 of 30 .*class0/1.png \(zero bytes\)"):
        kshot.load("folder", path=str(mine))
    with pytest.warns(UserWarning, match="4 of 30 images cannot be read"):
        data = kshot.load("folder", path=str(mine), skip_unreadable=True, splits={"test": 1})
    assert len(data["test"].classes) == 9
    assert data["test"].sizes[0] == 2


def test_equal_images_in_two_splits_are_reported(cache, tmp_path, make_images):
    mine = make_images(tmp_path / "mine", "train/a/1.png", "train/a/2.png", "test/b/1.png")
    (mine / "test" / "b" / "2.png").write_bytes((mine / "train" / "a" / "2.png").read_bytes())
    with pytest.warns(UserWarning, match=r"such as .*a/2.png .*b/2.png"):
        kshot.load("folder", path=str(mine))


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["a.png", "b.png"], "2 of 2 images do not lie as class/image, such as a.png"),
        ([*TEN, "cover.png"], "1 of 31 images .*such as cover.png"),
        ([*TEN, "class0/deep/1.png"], "class/image, such as class0/deep/1.png"),
        (["train/1.png", "test/1.png"], "split/class/image, such as"),
        (["train/a/1.png", "test/a/1.png"], "the class a is in the splits"),
        (["train/a/1.png", "extra/b/1.png"], "class/image, such as"),
        (["only/1.png", "only/2.png"], r"of 1 class.*needs 2 classes"),
        (["a/1.png", "a/2.png", "b/1.png", "b/2.png"], "of 2 classes .*none is left for the split"),
    ],
)
def test_layouts_that_are_refused(cache, tmp_path, make_images, names, says):
    with pytest.raises(DataError, match=says):
        kshot.load("folder", path=str(make_images(tmp_path / "mine", *names)))


def test_the_home_folder_may_be_abbreviated(cache, tmp_path, make_images, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    make_images(tmp_path / "mine", *TEN)
    assert len(kshot.load("folder", path="~/mine")["train"].classes) == 6


def test_paths_that_are_refused(cache, tmp_path):
    with pytest.raises(ConfigError, match="needs path"):
        kshot.load("folder")
    with pytest.raises(DataError, match="nothing at"):
        kshot.load("folder", path=str(tmp_path / "missing"))
    with pytest.raises(DataError, match="0 files, but no images"):
        kshot.load("folder", path=str(tmp_path))
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="1 files, but no images"):
        kshot.load("folder", path=str(tmp_path))
    with pytest.raises(DataError, match="no zip archive"):
        kshot.load("folder", path=str(tmp_path / "notes.txt"))


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"splits": {"train": 0.9, "test": 0.2}}, DataError, "add up to 1"),
        ({"splits": {"train": -1}}, DataError, "positive"),
        ({"splits": {"train": 0.99, "test": 0.01}}, DataError, "none is left for the split 'test'"),
        ({"splits": {}}, ConfigError, "give each split its fraction"),
        ({"splits": {"train": ["class0"]}}, ConfigError, "give each split its fraction"),
        ({"splits": "train"}, ConfigError, "give each split its fraction"),
        ({"splits": {"test": True}}, ConfigError, "give each split its fraction"),
        ({"splits": {"foo": 1}}, ConfigError, "no split is called 'foo'; known: test, train, val"),
        ({"seed": -1}, ConfigError, "seed=-1: give a whole number from 0"),
        ({"seed": 1.5}, ConfigError, "seed=1.5"),
        ({"skip_unreadable": "maybe"}, ConfigError, "'maybe' is neither true nor false"),
        ({"min_examples": 0}, ConfigError, "min_examples=0"),
        ({"size": 0}, ConfigError, "size=0"),
        ({"pathh": "x"}, ConfigError, "did you mean 'path'"),
    ],
)
def test_options_that_are_refused(cache, tmp_path, make_images, options, error, says):
    with pytest.raises(error, match=says):
        kshot.load("folder", path=str(make_images(tmp_path / "mine", *TEN)), **options)


def test_folders_and_the_option_cannot_both_say_the_splits(cache, tmp_path, make_images):
    mine = make_images(tmp_path / "mine", "train/a/1.png", "test/b/1.png")
    with pytest.raises(ConfigError, match="leave the option splits out"):
        kshot.load("folder", path=str(mine), splits={"test": 1})


MANY = """
import resource, sys, time
import kshot.datasets.folder
def grown(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = grown()
data = kshot.load("folder", path=sys.argv[1], size=32)
made = grown() - before
start = time.perf_counter()
again = kshot.load("folder", path=sys.argv[1], size=32)
print(made, time.perf_counter() - start, data["train"].fingerprint == again["train"].fingerprint)
"""


@pytest.mark.slow
def test_100_000_files(cache, tmp_path, make_images):
    mine = make_images(tmp_path / "mine", *(f"c{c}/0.png" for c in range(100)))
    for label in range(100):
        for number in range(1, 1000):
            os.link(mine / f"c{label}" / "0.png", mine / f"c{label}" / f"{number}.png")
    run = subprocess.run(
        [sys.executable, "-c", MANY, str(mine)], capture_output=True, text=True, check=True
    )
    mebibytes, seconds, same = run.stdout.split()
    assert int(mebibytes) < 300  # the store has 293, and lists of files take some
    assert float(seconds) < 20
    assert same == "True"
