"""mini- and tiered-ImageNet are taken from the user's copies, whatever their layout."""

import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import kshot
from kshot.datasets import imagenet
from kshot.datasets.raw import class_lists
from kshot.errors import ConfigError, DataError

LISTS = class_lists("mini-imagenet")
IDS = [label for split in LISTS.values() for label in split]
HOME = {label: split for split, labels in LISTS.items() for label in labels}


@pytest.fixture
def small(cache, monkeypatch):
    """Two images of each class are expected."""
    monkeypatch.setattr(imagenet, "IMAGES", {"mini_imagenet": 200, "tiered_imagenet": 608})


def counts(data):
    return [len(split.classes) for split in data.splits.values()]


def prints(data):
    return [split.fingerprint for split in data.splits.values()]


def names(place="{label}/{label}_{i}.JPEG"):
    return [place.format(label=c, split=HOME[c], i=i) for c in IDS for i in range(2)]


def write_lists(folder, images):
    for split, labels in LISTS.items():
        rows = [f"{name},{label}" for label in labels for name in images if name.startswith(label)]
        (folder / f"{split}.csv").write_text("\n".join(["filename,label", *rows]) + "\n")


def test_all_layouts_give_the_same_data(small, tmp_path, make_images, pack):
    flat = make_images(tmp_path / "flat", *names())
    listed, split = tmp_path / "listed", tmp_path / "split"
    (listed / "images").mkdir(parents=True)
    for path in sorted(flat.rglob("*.JPEG")):
        label = path.parent.name
        home = split / HOME[label] / label
        home.mkdir(parents=True, exist_ok=True)
        for target in (listed / "images", home):
            (target / path.name).write_bytes(path.read_bytes())
    write_lists(listed, [path.name for path in (listed / "images").iterdir()][::-1])
    archive = pack(flat, tmp_path / "mini.zip")
    found = [kshot.load("mini_imagenet", path=str(p)) for p in (flat, split, listed, archive)]
    assert counts(found[0]) == [64, 16, 20]
    assert found[0]["train"].x.shape == (200, 3, 84, 84)
    assert all(prints(data) == prints(found[0]) for data in found)
    assert {s: list(x.classes) for s, x in found[1].splits.items()} == LISTS


def test_kshot_data_is_searched(small, tmp_path, make_images, monkeypatch):
    monkeypatch.setenv("KSHOT_DATA", str(tmp_path))
    assert not kshot.datasets.entry("mini_imagenet").present()
    make_images(tmp_path / "mini-imagenet", *names())
    assert kshot.datasets.entry("mini_imagenet").present()
    assert counts(kshot.load("mini_imagenet", size=32)) == [64, 16, 20]


def test_tiered_and_other_classes_beside(small, tmp_path, make_images):
    ids = [label for split in class_lists("tiered-imagenet").values() for label in split]
    mine = make_images(tmp_path / "all", *(f"{c}/1.jpg" for c in [*ids, "n00000000", "other"]))
    data = kshot.load("tiered_imagenet", path=str(mine), size=8)
    assert counts(data) == [351, 97, 160]
    assert len(data["train"].x) == 608


@pytest.mark.parametrize("name", ["mini_imagenet", "tiered_imagenet"])
def test_without_a_copy(cache, name):
    with pytest.raises(DataError, match=rf"no download.*{name.replace('_', '-')}.*KSHOT_DATA"):
        kshot.load(name)
    with pytest.raises(DataError, match="nothing at"):
        kshot.load(name, path="/nowhere")
    with pytest.raises(ConfigError, match="did you mean 'size'"):
        kshot.load(name, sizes=84)


def test_missing_classes(small, tmp_path, make_images):
    mine = make_images(tmp_path / "mini", *names()[8:])
    with pytest.raises(DataError, match=rf"lacks 4 of mini_imagenet's 100 .*{IDS[0]}, {IDS[1]}"):
        kshot.load("mini_imagenet", path=str(mine))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="lacks 100 of"):
        kshot.load("mini_imagenet", path=str(tmp_path / "empty"))


def test_another_number_of_images(small, tmp_path, make_images):
    mine = make_images(tmp_path / "mini", *names()[1:])
    with pytest.warns(UserWarning, match="199 images .* 200: do not compare"):
        kshot.load("mini_imagenet", path=str(mine), size=8)


def test_a_class_in_two_places(small, tmp_path, make_images):
    mine = make_images(
        tmp_path / "mini", *names("{split}/{label}/{i}.jpg"), f"other/{IDS[0]}/9.jpg"
    )
    with pytest.raises(DataError, match=rf"{IDS[0]} is in other/{IDS[0]} and in train/{IDS[0]}"):
        kshot.load("mini_imagenet", path=str(mine))


def test_lists_without_their_images(small, tmp_path, make_images):
    images = names("{label}{i:08d}.jpg")
    mine = make_images(tmp_path / "mini", *(f"images/{name}" for name in images[3:]))
    write_lists(mine, images)
    with pytest.raises(DataError, match=rf"lacks 3 of 200 images .*{images[0]}.*mini/images"):
        kshot.load("mini_imagenet", path=str(mine))
    (mine / "val.csv").write_text("file,class\na,b\n")
    with pytest.raises(DataError, match=r"val.csv has no column filename, label"):
        kshot.load("mini_imagenet", path=str(mine))


@pytest.mark.filterwarnings("ignore:mini_imagenet")
def test_unreadable_images(small, tmp_path, make_images):
    mine = make_images(tmp_path / "mini", *names())
    first = mine / IDS[0] / f"{IDS[0]}_0.JPEG"
    first.write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 200 .*zero bytes"):
        kshot.load("mini_imagenet", path=str(mine), size=8)
    data = kshot.load("mini_imagenet", path=str(mine), size=8, skip_unreadable=True)
    assert data["train"].sizes[0] == 1
    first.with_name(f"{IDS[0]}_1.JPEG").write_bytes(b"")
    with pytest.raises(DataError, match="lacks 1 of mini_imagenet's 100 classes"):
        kshot.load("mini_imagenet", path=str(mine), size=8, skip_unreadable=True)


def test_the_documented_script_converts_a_pickled_cache(small, tmp_path):
    """The caches as they circulate: pixels of all images, and the rows of each class."""
    page = Path(__file__).parents[2] / "docs" / "data.md"
    script = re.search(r"(# file: convert_.*?)```", page.read_text(), re.DOTALL)[1]
    (tmp_path / "convert.py").write_text(script)
    for split, labels in LISTS.items():
        pixels = np.random.default_rng(len(labels)).integers(
            0, 256, (2 * len(labels), 84, 84, 3), np.uint8
        )
        rows = {label: [i, i + len(labels)] for i, label in enumerate(labels)}
        cache = {"image_data": pixels, "class_dict": rows}
        (tmp_path / f"mini-imagenet-cache-{split}.pkl").write_bytes(pickle.dumps(cache))
    command = [sys.executable, "convert.py", ".", "mini"]
    subprocess.run(command, cwd=tmp_path, check=True)
    data = kshot.load("mini_imagenet", path=str(tmp_path / "mini"))
    assert counts(data) == [64, 16, 20]
    x = (data["test"].examples(slice(6, 8)) * 255).round().byte().permute(0, 2, 3, 1)
    assert np.array_equal(x.numpy(), pixels[[3, 3 + len(labels)]])


class Evil:
    def __reduce__(self):
        return print, ("this pickle was opened",)


@pytest.mark.parametrize("name", ["mini-imagenet-cache-train.pkl", "a.pickle", "b.PKL.gz"])
def test_pickles_are_never_opened(cache, tmp_path, capsys, name):
    path = tmp_path / "mini" / name
    path.parent.mkdir()
    path.write_bytes(pickle.dumps(Evil()))
    for given in (path, path.parent):
        with pytest.raises(DataError, match=rf"{name} is a pickle.*Converting a pickled cache"):
            kshot.load("mini_imagenet", path=str(given))
    assert "opened" not in capsys.readouterr().out
