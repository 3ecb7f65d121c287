"""What leaving out examples shows, and the page that shows it."""

import re

import numpy as np
import pytest
import torch

import kshot
from kshot.errors import InputError
from kshot.estimators.inspection import inspect
from kshot.estimators.inspection_page import write_inspection
from tests.estimators.test_classifier import blobs


def apart(classes, each, width, distance=6):
    """Classes that nobody confuses."""
    x, y = blobs(classes, each, width)
    return x + distance * np.eye(classes, width)[y], y


@pytest.fixture
def mislabelled():
    """Four classes; example 3 of class 0 is called 1, and is there twice, rightly once."""
    x, y = apart(4, 6, 5, distance=2)
    x = np.concatenate([x, x[3:4]])
    names = np.array([*"abcd"])[np.append(y, 1)]
    return kshot.FewShotClassifier(calibrate=True).fit(x, names)


def test_a_wrong_label_is_in_doubt_and_harms(mislabelled):
    found = inspect(mislabelled)
    assert found.rows.tolist() == [*range(25)]
    assert found.doubts[0][:2] == (24, 0)
    assert found.harms[0].row == 24
    assert found.confusion[1, 0] >= 1
    assert found.confusion.sum() == 25
    assert found.right == int(found.confusion.diagonal().sum())


def test_a_copy_is_found(mislabelled):
    pairs = inspect(mislabelled).pairs
    assert (pairs[0].rows, pairs[0].distance, pairs[0].same_class) == ((3, 24), 0.0, False)


def test_clean_examples_raise_no_alarm():
    x, y = apart(3, 8, 6)
    found = inspect(kshot.FewShotClassifier().fit(x, y))
    assert not found.doubts
    assert not found.pairs
    assert found.right == 24


def test_confusions_of_many_classes_are_counted(tmp_path):
    x, y = blobs(25, 4, 5)
    x[y == 1] = x[y == 0]
    page = tmp_path / "page.html"
    write_inspection(kshot.FewShotClassifier().fit(x, y), page, "many")
    counts = re.findall(r"<td>\d+</td><td>\d+</td><td>(-?\d+)</td>", page.read_text())
    assert counts
    assert all(int(count) > 0 for count in counts)


def test_one_example_of_each(tmp_path):
    x, y = blobs(3, 1)
    model = kshot.FewShotClassifier().fit(x, y)
    found = write_inspection(model, tmp_path / "page.html", "three")
    assert len(found.rows) == 0
    assert not found.harms
    assert "add a second one" in (tmp_path / "page.html").read_text()


def test_the_page_of_images(tmp_path):
    digits = kshot.load("digits")["test"]
    rows = torch.cat([torch.arange(o, o + 4) for o in digits.offsets[:3].tolist()])
    names = np.array(["<b>", "one", "two"])
    labels = names[digits.labels()[rows].numpy()]
    model = kshot.FewShotClassifier().fit(digits.x[rows, 0].numpy(), labels)
    model.save(tmp_path / "m.kshot")
    loaded = kshot.load_model(tmp_path / "m.kshot")  # the pictures travel in the file
    write_inspection(loaded, tmp_path / "page.html", "digits")
    page = (tmp_path / "page.html").read_text()
    assert len(re.findall("<img", page)) >= 12 + 1
    assert "&lt;b&gt;" in page
    assert "<b>" not in page.replace("<b>", "", page.count(" of 12</b>"))


def test_the_page_of_texts_shows_them(cli, tmp_path):
    x, y = blobs(25, 2, width=30)
    kshot.FewShotClassifier().fit(x, np.char.add("class ", y.astype(str))).save(
        tmp_path / "m.kshot"
    )
    done = cli("inspect", "m.kshot")
    assert done.returncode == 0, done.stderr
    assert "examples are recognised by the others" in done.stdout
    assert "How the learner sees" in (tmp_path / "m.html").read_text()


def test_a_table_of_one_column_has_a_map(tmp_path):
    x, y = blobs(2, 6, width=1)
    write_inspection(kshot.FewShotClassifier().fit(x, y), tmp_path / "page.html", "one")
    assert "How the learner sees" in (tmp_path / "page.html").read_text()


def test_equal_rows_have_no_map(tmp_path):
    model = kshot.FewShotClassifier().fit(np.full((5, 1), 3.0), [0, 1, 0, 1, 0])
    write_inspection(model, tmp_path / "page.html", "equal")
    assert "How the learner sees" not in (tmp_path / "page.html").read_text()


def test_what_cannot_be_inspected(cli, tmp_path, monkeypatch):
    x, y = blobs()
    kshot.FewShotRegressor().fit(x, 1.0 * y).save(tmp_path / "r.kshot")
    assert "confusions are of classes" in cli("inspect", "r.kshot").stderr
    model = kshot.FewShotClassifier().fit(x, y)
    model.save(tmp_path / "m.kshot")
    assert "ends in .html" in cli("inspect", "m.kshot", "--out", "m.png").stderr
    monkeypatch.setattr("kshot.estimators.inspection_page.MOST", 10)
    with pytest.raises(InputError, match="shows 10 at most"):
        write_inspection(model, tmp_path / "page.html", "many")
