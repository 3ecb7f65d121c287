"""CIFAR-100's copies give the same store; CIFAR-FS and FC100 are their published classes."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import kshot
from kshot.datasets import cifar
from kshot.datasets.raw import class_lists
from kshot.errors import DataError

NAMES = sorted(name for split in class_lists("cifar-fs").values() for name in split)
TRAIN, TEST = 2, 1


@pytest.fixture
def small(monkeypatch):
    """Three images of each class instead of 600, as `(class, image)` by file of the publisher."""
    monkeypatch.setattr(cifar, "EXAMPLES", TRAIN + TEST)
    sizes = {"train.bin": 100 * TRAIN, "test.bin": 100 * TEST}
    monkeypatch.setattr(cifar, "MEMBERS", {k: v * cifar.RECORD for k, v in sizes.items()})
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (300, 3, 32, 32), np.uint8)
    labels = generator.permutation(np.arange(300) % 100)
    # Each file of the publisher has as many images of each class as the other classes have.
    order = np.argsort(labels, kind="stable").reshape(100, 3)
    return {
        "train.bin": [(n // TRAIN, images[i]) for n, i in enumerate(order[:, :TRAIN].ravel())][
            ::-1
        ],
        "test.bin": [(n, images[i]) for n, i in enumerate(order[:, TRAIN])],
    }


def binary(folder, small, names=NAMES, **changed):
    """The publisher's archive; `changed` replaces members, None leaves one out."""
    members = {
        part.replace(".", "_"): b"".join(bytes([0, n]) + x.tobytes() for n, x in records)
        for part, records in small.items()
    }
    members["fine_label_names_txt"] = "\n".join(names).encode()
    members |= changed
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "cifar-100-binary.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members.items():
            if data is not None:
                name = ".".join(name.rsplit("_", 1))
                info = tarfile.TarInfo(f"cifar-100-binary/{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def pictures(folder, small):
    """The classes as folders of PNG files, with names in another order."""
    number = 0
    for records in small.values():
        for label, x in records:
            number += 7
            path = folder / "cifar100" / "data" / NAMES[label] / f"{number % 900:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(x.transpose(1, 2, 0)).save(path)
    return folder


def test_all_copies_give_the_same_store(cache, small, tmp_path, monkeypatch, pack):
    loose = pictures(tmp_path / "loose", small)
    (tmp_path / "packed").mkdir()
    pack(loose, tmp_path / "packed" / "cifar100.zip")
    binary(tmp_path / "binary", small)
    found = {}
    for kind in ("loose", "packed", "binary"):
        monkeypatch.setenv("KSHOT_CACHE", str(cache / kind))
        data = kshot.load("cifar_fs", path=str(tmp_path / kind))
        found[kind] = [split.fingerprint for split in data.splits.values()]
    assert found["loose"] == found["packed"] == found["binary"]


def test_images_keep_their_classes_and_colours(cache, small, tmp_path):
    binary(tmp_path / "there", small)
    data = kshot.load("fc100", path=str(tmp_path / "there"))
    for split in data.splits.values():
        label = split.classes[3]
        mine = {
            tuple(x.ravel()) for x in (split.examples(slice(9, 12)) * 255).round().int().numpy()
        }
        theirs = [x for part in small.values() for number, x in part if NAMES[number] == str(label)]
        assert mine == {tuple(x.ravel()) for x in theirs}


def test_both_data_sets_share_a_store_and_find_it_in_kshot_data(
    cache, small, tmp_path, monkeypatch
):
    assert not kshot.datasets.entry("cifar_fs").present()
    monkeypatch.setenv("KSHOT_DATA", str(tmp_path))
    binary(tmp_path / "cifar-fs", small)
    assert kshot.datasets.entry("fc100").present()
    fs, fc = kshot.load("cifar_fs"), kshot.load("fc100")
    assert len(list(cache.iterdir())) == 1
    assert [len(s.classes) for s in fs.splits.values()] == [64, 16, 20]
    assert [len(s.classes) for s in fc.splits.values()] == [60, 20, 20]
    assert fs["train"].x.shape == (300, 3, 32, 32)


@pytest.mark.parametrize(
    "changed",
    [
        {"test_bin": None},
        {"test_bin": b"short"},
        {"fine_label_names_txt": None},
        {"fine_label_names_txt": b"x" * 2**16},
        {"fine_label_names_txt": b"only three names"},
        {"fine_label_names_txt": "\n".join(NAMES[::-1][1:]).encode()},
    ],
)
def test_an_archive_with_other_members_is_refused(cache, small, tmp_path, changed):
    binary(tmp_path / "there", small, **changed)
    with pytest.raises(DataError, match=r"cifar-100-binary.tar.gz has .* get"):
        kshot.load("cifar_fs", path=str(tmp_path / "there"))
    assert not list(cache.glob("*"))


@pytest.mark.parametrize("keep", [0, 100, 200_000])
def test_a_truncated_archive(cache, small, tmp_path, keep):
    path = binary(tmp_path / "there", small)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="damaged or incomplete"):
        kshot.load("cifar_fs", path=str(tmp_path / "there"))


def test_links_in_the_archive_are_not_followed(cache, small, tmp_path):
    path = binary(tmp_path / "there", small, test_bin=None)
    members = []
    with tarfile.open(path) as tar:
        members = [(m, tar.extractfile(m).read()) for m in tar]
    with tarfile.open(path, "w:gz") as tar:
        for member, data in members:
            tar.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("cifar-100-binary/test.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        link.size = cifar.MEMBERS["test.bin"]
        tar.addfile(link)
    with pytest.raises(DataError, match=r"no test.bin"):
        kshot.load("cifar_fs", path=str(tmp_path / "there"))


def test_a_missing_picture_is_noticed(cache, small, tmp_path):
    there = pictures(tmp_path / "there", small)
    next(there.rglob("*.png")).unlink()
    with pytest.raises(DataError, match=r"299 images of 100 classes, .* 100 classes of 3"):
        kshot.load("cifar_fs", path=str(there))


def test_a_path_without_cifar(cache, tmp_path):
    with pytest.raises(DataError, match=r"none of .*cifar100.zip.* at"):
        kshot.load("cifar_fs", path=str(tmp_path))


@pytest.fixture(scope="module")
def real(real_data):
    if not (real_data / "cifar-fs").exists():
        pytest.skip(f"{real_data} has no cifar-fs")
    with pytest.warns(UserWarning, match="15 image.s. are in two splits"):
        fs = kshot.load("cifar_fs")
    with pytest.warns(UserWarning, match="3 image.s. are in two splits"):
        fc = kshot.load("fc100")
    return fs, fc


@pytest.mark.data
def test_real_counts(real):
    for data, counts in zip(real, [(64, 16, 20), (60, 20, 20)], strict=True):
        assert tuple(len(split.classes) for split in data.splits.values()) == counts
        assert all(set(split.sizes) == {600} for split in data.splits.values())
        assert len(set().union(*(split.classes for split in data.splits.values()))) == 100
    assert real[0]["train"].x.shape == (60000, 3, 32, 32)


@pytest.mark.data
def test_real_superclasses_stay_whole_in_fc100(real, real_data):
    table = real_data / "splits" / "cifar100-superclasses.csv"
    if not Path(table).exists():
        pytest.skip(f"there is no {table}")
    above = dict(line.split(",")[::-1] for line in table.read_text().split()[1:])
    groups = [{above[label] for label in split.classes} for split in real[1].splits.values()]
    assert [len(group) for group in groups] == [12, 4, 4]
    assert len(set().union(*groups)) == 20


@pytest.mark.data
def test_real_pixels(real):
    x = real[0]["train"].examples(torch.arange(0, 38400, 16))
    # The mean colour of CIFAR-100's training images, as everybody normalises by it.
    assert x.mean((0, 2, 3)).tolist() == pytest.approx([0.507, 0.487, 0.441], abs=0.02)


@pytest.mark.data
def test_real_images_are_worth_something(real):
    result = kshot.evaluate(kshot.NearestNeighbour(), real[0]["test"], way=5, shot=5, episodes=200)
    assert 0.25 < result.mean < 0.5
