"""A data set of Meta-Album is read as its tables say."""

import json

import pytest

import kshot
from kshot.errors import ConfigError, DataError

IMAGES = [(f"{c}_{i}.jpg", f"category {c}") for c in range(10) for i in range(3)]


def table(rows, header="FILE_NAME,CATEGORY,SUPER_CATEGORY", delimiter=","):
    lines = [header, *(f"{name},{label},none" for name, label in rows)]
    return "\n".join(lines).replace(",", delimiter) + "\n"


@pytest.fixture
def album(cache, tmp_path, make_images):
    """Ten categories of three images."""
    folder = make_images(tmp_path / "BRD_Mini", *(f"images/{name}" for name, _ in IMAGES))
    (folder / "labels.csv").write_text(table(IMAGES[::-1]))
    return folder


def load(path, **options):
    return kshot.load("meta_album", path=str(path), **options)


def prints(data):
    return [split.fingerprint for split in data.splits.values()]


def test_categories_are_drawn(album):
    data, same, other = (load(album, seed=seed) for seed in (0, 0, 1))
    assert [len(split.classes) for split in data.splits.values()] == [6, 2, 2]
    assert data["train"].x.shape == (30, 3, 128, 128)
    assert set(data["train"].sizes) == {3}
    assert all(str(label).startswith("category ") for label in data["train"].classes)
    assert prints(data) == prints(same) != prints(other)
    assert list(load(album, splits={"test": 1}).splits) == ["test"]


def test_archive_and_folder_agree(album, tmp_path, pack):
    alone = pack(album, tmp_path / "alone.zip")
    outer = tmp_path / "outer"
    outer.mkdir()
    album.rename(outer / "BRD_Mini")
    wrapped = pack(outer, tmp_path / "wrapped.zip")
    found = [prints(load(path)) for path in (outer, alone, wrapped)]
    assert found[0] == found[1] == found[2]


def test_images_may_lie_beside_the_table(album):
    before = prints(load(album))
    for image in (album / "images").iterdir():
        image.rename(album / image.name)
    assert prints(load(album)) == before


def test_other_columns_and_tabs(album):
    before = prints(load(album))
    (album / "labels.csv").write_text(table(IMAGES, "image,label,other", "\t"))
    info = {"image_column_name": "image", "category_column_name": "label", "csv_with_tab": True}
    (album / "info.json").write_text(json.dumps(info))
    assert prints(load(album)) == before


def test_small_categories_and_unreadable_images(album):
    (album / "labels.csv").write_text(table(IMAGES[:-2]))
    with pytest.warns(UserWarning, match=r"fewer than 2 images are left out: category 9 \(1\)"):
        load(album)
    (album / "labels.csv").write_text(table(IMAGES))
    (album / "images" / "0_0.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 30 .*0_0.jpg \(zero bytes\)"):
        load(album)
    with pytest.warns(UserWarning, match="left out"):
        assert len(load(album, skip_unreadable=True)["train"].x) == 29


def test_missing_images(album):
    (album / "labels.csv").write_text(table([*IMAGES, ("../../secret.jpg", "x"), ("b.jpg", "x")]))
    with pytest.raises(DataError, match=r"lacks 2 of 32 images .*secret.jpg, b.jpg"):
        load(album)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("labels.csv", "a,b\n1,2\n", "has no column CATEGORY, FILE_NAME"),
        ("labels.csv", "", "it is empty"),
        ("labels.csv", "FILE_NAME,CATEGORY\nx.jpg,\n", "lacks a value in row 2"),
        ("info.json", "{", "cannot be read as JSON"),
        ("info.json", "[1]", "must hold a table"),
        ("deeper/labels.csv", "", "2 files labels.csv"),
    ],
)
def test_damaged_tables(album, name, text, says):
    (album / name).parent.mkdir(exist_ok=True)
    (album / name).write_text(text)
    with pytest.raises(DataError, match=says):
        load(album)


def test_paths_and_options_that_are_refused(album, tmp_path):
    with pytest.raises(ConfigError, match="needs path"):
        kshot.load("meta_album")
    with pytest.raises(DataError, match="nothing at"):
        load(tmp_path / "missing")
    with pytest.raises(DataError, match=r"0 files labels.csv: give the folder"):
        load(album / "images")
    with pytest.raises(ConfigError, match="fraction of the classes"):
        load(album, splits={"test": "all"})
    with pytest.raises(ConfigError, match="did you mean 'size'"):
        load(album, sizes=3)
