"""Stores are made once, whole or not at all, in little memory."""

import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from kshot.datasets.images import ImageFormat
from kshot.datasets.raw import UnreadableError
from kshot.datasets.store import Item, open_store
from kshot.errors import CheckpointError, DataError

FORM = ImageFormat(4, 1)


def image(value):
    return np.full((1, 4, 4), value, np.uint8)


def items(*values, label=None):
    """Images of one value each, two for a class: 0a 0b 1a 1b ..."""
    return [
        Item(label or f"class{i // 2}", f"image{i}", lambda v=v: image(v))
        for i, v in enumerate(values)
    ]


def unreadable():
    raise UnreadableError("zero bytes")


class Source:
    """Lists items and counts how often it was asked."""

    def __init__(self, listed):
        self.listed = listed
        self.asked = 0

    @contextmanager
    def __call__(self):
        self.asked += 1
        yield self.listed


def opened(listed, **options):
    return open_store("mine", "source", FORM, Source(listed), **options)


def test_images_lie_class_after_class(cache):
    store = opened(items(10, 11, 20, 21))
    assert store.images.shape == (4, 1, 4, 4)
    assert store.images.dtype == torch.uint8
    assert store.images[:, 0, 0, 0].tolist() == [10, 11, 20, 21]
    assert store.sizes == {"class0": 2, "class1": 2}
    assert store.duplicates == []


def test_splits_take_their_classes_from_one_file(cache):
    store = opened(items(*range(12)))
    chosen = {"train": ["class4", "class0", "class1"], "test": ["class3"]}
    splits = store.splits("mine", chosen)
    assert splits["train"].x is splits["test"].x
    assert splits["train"].classes == ("class4", "class0", "class1")
    x = splits["train"].examples(slice(None))
    assert (x[:, 0, 0, 0] * 255).round().tolist() == [8, 9, 0, 1, 2, 3]
    assert splits["train"].fingerprint != splits["test"].fingerprint
    again = store.splits("mine", chosen)
    assert again["train"].fingerprint == splits["train"].fingerprint


def test_a_store_is_made_once(cache):
    first, second = Source(items(1, 2)), Source(items(1, 2))
    one = open_store("mine", "source", FORM, first)
    two = open_store("mine", "source", FORM, second)
    assert (first.asked, second.asked) == (1, 0)
    assert one.fingerprint == two.fingerprint
    assert torch.equal(one.images, two.images)


def test_another_source_or_format_is_another_store(cache):
    makers = [Source(items(1, 2)) for _ in range(3)]
    open_store("mine", "a", FORM, makers[0])
    open_store("mine", "b", FORM, makers[1])
    open_store("mine", "a", ImageFormat(4, 1, "nearest"), makers[2])
    assert [m.asked for m in makers] == [1, 1, 1]


def test_the_fingerprint_follows_pixels_and_classes(cache):
    prints = {
        open_store("mine", i, FORM, Source(listed)).fingerprint
        for i, listed in enumerate(
            [items(1, 2), items(1, 3), items(2, 1), items(1, 2, label="other"), items(1, 2)]
        )
    }
    assert len(prints) == 4


def test_a_split_has_the_fingerprint_of_its_own_images_or_of_all(cache):
    chosen = {"train": ["class0"], "test": ["class1"]}

    def prints(*values, **options):
        made = open_store("mine", values, FORM, Source(items(*values)))
        return [split.fingerprint for split in made.splits("mine", chosen, **options).values()]

    train, test = prints(1, 2, 3, 4)
    assert prints(1, 9, 3, 4) != [train, test]
    assert prints(1, 9, 3, 4)[1] == test
    assert prints(1, 2, 4, 3)[0] == train
    assert prints(1, 2, 4, 3)[1] != test
    assert not set(prints(1, 2, 3, 4, whole=True)) & set(prints(1, 9, 3, 4, whole=True))


def test_by_content_ignores_names_and_order_within_a_class(cache):
    one = [Item("a", "x", lambda: image(1)), Item("a", "y", lambda: image(2))]
    two = [Item("a", "p", lambda: image(2)), Item("a", "q", lambda: image(1))]
    stores = [
        open_store("mine", f"{n} {by}", FORM, Source(listed), by_content=by)
        for by in (True, False)
        for n, listed in enumerate((one, two))
    ]
    assert stores[0].fingerprint == stores[1].fingerprint
    assert torch.equal(stores[0].images, stores[1].images)
    assert stores[2].fingerprint != stores[3].fingerprint


def test_unreadable_images_are_listed_and_nothing_is_left(cache):
    bad = [Item("a", f"bad{i}", unreadable) for i in range(12)]
    with pytest.raises(DataError) as caught:
        opened([*items(1, 2), *bad], skip_unreadable=False)
    message = str(caught.value)
    assert "12 of 14 images cannot be read" in message
    assert "bad0 (zero bytes)" in message
    assert "bad9" in message
    assert "bad10" not in message
    assert "and 2 more" in message
    assert "skip_unreadable" in message
    assert "\n" not in message
    assert list(cache.iterdir()) == []


def test_a_data_set_without_the_flag_does_not_offer_it(cache):
    with pytest.raises(DataError, match="get it again") as caught:
        opened([*items(1), Item("a", "bad", unreadable)])
    assert "skip_unreadable" not in str(caught.value)


def test_unreadable_images_are_left_out_on_demand(cache):
    listed = [*items(1, 2), Item("class0", "bad", unreadable), *items(9, label="last")]
    for _ in range(2):  # made, then found
        with pytest.warns(UserWarning, match=r"1 of 4 images cannot be read: bad .*left out"):
            store = opened(listed, skip_unreadable=True)
    assert store.sizes == {"class0": 2, "last": 1}
    assert store.images[:, 0, 0, 0].tolist() == [1, 2, 9]


def test_nothing_readable_at_all(cache):
    with pytest.raises(DataError, match=r"1 of 1 images .*bad \(zero bytes\): none is left"):
        opened([Item("a", "bad", unreadable)], skip_unreadable=True)
    with pytest.raises(DataError, match="no images were found"):
        opened([])
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, DataError])
def test_an_interruption_leaves_nothing(cache, error):
    def stop():
        assert len(list(cache.iterdir())) == 1  # the half-written store
        raise error

    with pytest.raises(error):
        opened([*items(1, 2), Item("a", "x", stop)])
    assert list(cache.iterdir()) == []
    assert opened(items(1, 2)).sizes == {"class0": 2}


def test_what_a_killed_process_left_is_removed(cache):
    for name, age in (("killed", 3600), ("working", 0)):
        left = cache / f".mine-{name}.123" / "images.bin"
        left.parent.mkdir(parents=True)
        left.write_bytes(b"half")
        os.utime(left, times=(time.time() - age,) * 2)
    opened(items(1, 2))
    assert [path.name for path in cache.glob(".*")] == [".mine-working.123"]


def test_the_faster_of_two_processes_wins(cache):
    """Even where both have one number, as in containers that share a cache."""

    def meanwhile():
        opened(items(1, 2))
        return image(2)

    store = opened([Item("class0", "image0", lambda: image(1)), Item("class0", "x", meanwhile)])
    assert store.images[:, 0, 0, 0].tolist() == [1, 2]
    assert len(list(cache.iterdir())) == 1


def test_a_damaged_store_says_which_folder_to_remove(cache):
    opened(items(1, 2))
    (folder,) = cache.iterdir()
    (folder / "images.bin").write_bytes(b"")
    with pytest.raises(DataError, match=f"{folder} is damaged.*made again"):
        opened(items(1, 2))
    (folder / "index.json").write_text('{"shape": [2, 1, 4, 4]}')
    with pytest.raises(DataError, match=f"{folder} is damaged.*made again"):
        opened(items(1, 2))
    shutil.rmtree(folder)
    assert opened(items(1, 2)).sizes == {"class0": 2}


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KSHOT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(CheckpointError, match="cannot write"):
        opened(items(1, 2))


def test_equal_images_in_two_splits_are_reported(cache):
    store = opened(items(1, 2, 3, 2, 5, 6))
    assert store.duplicates == [["class0", "image1", "class1", "image3"]]
    with pytest.warns(UserWarning, match=r"1 image.*image1 \(train\) and image3 \(test\)"):
        store.splits("mine", {"train": ["class0"], "test": ["class1", "class2"]})


@pytest.mark.filterwarnings("error")
def test_equal_images_within_a_split_are_not(cache):
    store = opened(items(1, 2, 3, 2, 5, 6))
    store.splits("mine", {"train": ["class0", "class1"], "test": ["class2"]})
    store.splits("mine", {"train": ["class0"], "test": ["class2"]})


BUILD = """
import contextlib, resource, sys
import numpy as np
from kshot.datasets.images import ImageFormat
from kshot.datasets.store import Item, open_store

page = np.zeros((3, 1024, 1024), np.uint8)
def load(i):
    page[0, 0, :4] = np.frombuffer(i.to_bytes(4, "little"), np.uint8)
    return page
items = [Item(f"class{i // 10}", str(i), lambda i=i: load(i)) for i in range(60)]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
store = open_store("big", "", ImageFormat(1024), lambda: contextlib.nullcontext(items))
assert store.images[57, 0, 0, 0] == 57
print(store.images.numel(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux counts it")
def test_a_store_larger_than_its_memory(cache):
    run = subprocess.run(
        [sys.executable, "-c", BUILD], capture_output=True, text=True, env=dict(os.environ)
    )
    assert run.returncode == 0, run.stderr
    size, grown = map(int, run.stdout.split())
    assert size > 180e6
    assert grown * 1024 < size / 10
