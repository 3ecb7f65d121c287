"""Tables: CSV and JSON lines, and every way in which they can be wrong."""

import json

import pytest

from kshot.datasets.tables import choose_columns, is_table, rows_of
from kshot.errors import ConfigError, DataError


def write(tmp_path, content, name="t.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_of_any_delimiter(tmp_path, delimiter):
    path = write(
        tmp_path,
        f"\ufeffa{delimiter}b{delimiter}label\n1{delimiter}2.5{delimiter}x\n\n3{delimiter}4{delimiter}y\n",
    )
    rows = list(rows_of(path))
    assert [r.cells["label"] for r in rows] == ["x", "y"]
    assert [r.line for r in rows] == [2, 4]
    columns = choose_columns(path, rows, "label", None)
    assert columns.numbers
    assert [columns.value(path, r) for r in rows] == [[1, 2.5], [3, 4]]


def test_quoted_texts(tmp_path):
    path = write(tmp_path, 'text,label\n"one, two\nthree",a\n')
    (row,) = rows_of(path)
    assert choose_columns(path, [row], "label", None).value(path, row) == "one, two\nthree"


def test_json_lines(tmp_path):
    lines = [{"text": "a", "label": 1, "id": 7}, {"text": "b", "label": 2, "id": 8}]
    path = write(tmp_path, "\n".join(map(json.dumps, lines)), "t.jsonl")
    rows = list(rows_of(path))
    columns = choose_columns(path, rows, "label", ["text"])
    assert [columns.value(path, r) for r in rows] == ["a", "b"]
    with pytest.raises(ConfigError, match="name the one of texts"):
        choose_columns(path, rows, "label", None)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is empty"),
        ("a,a\n1,2\n", "'a' comes twice"),
        ("a,\n1,2\n", "one has none"),
        ("a,b\n1,2,3\n", "line 2: 3 cells"),
        ("a,b\n1\n", "line 2: 1 cells"),
        (b"a,b\ncaf\xe9,1\n", "not all UTF-8 .*0xe9"),
        ('a,b\n"open,1\n', "never closed"),
        ("a,b\nx" + "y" * 1_000_001 + ",1\n", "field larger"),
    ],
)
def test_csv_that_is_none(tmp_path, content, says):
    path = write(tmp_path, content)
    with pytest.raises(DataError, match=says):
        list(rows_of(path))


@pytest.mark.parametrize(
    ("content", "says"),
    [("{", "line 1 is no JSON"), ("[1]", "no object"), ('{"a": 1}\n"b"', "line 2 is no object")],
)
def test_json_that_is_none(tmp_path, content, says):
    with pytest.raises(DataError, match=says):
        list(rows_of(write(tmp_path, content, "t.jsonl")))


def test_cells(tmp_path):
    path = write(tmp_path, "a,label\n1,x\n,y\ntwo,z\nnan,w\n5,v\n6,u\n")
    rows = list(rows_of(path))
    columns = choose_columns(path, rows, "label", None)
    for row, says in zip(rows[1:4], ("line 3: a is empty", "'two'", "'nan'"), strict=True):
        with pytest.raises(DataError, match=says):
            columns.value(path, row)


def test_a_column_that_begins_with_nan_is_of_numbers(tmp_path):
    path = write(tmp_path, "a,label\nnan,x\n1,y\n")
    rows = list(rows_of(path))
    with pytest.raises(DataError, match="line 2: a is 'nan', which is no number"):
        choose_columns(path, rows, "label", None).value(path, rows[0])


def test_columns_that_are_not_there(tmp_path):
    path = write(tmp_path, "a,label\n1,x\n")
    (row,) = rows_of(path)
    with pytest.raises(ConfigError, match=r"no column 'kind': it has 'a', 'label'"):
        choose_columns(path, [row], "kind", None)
    with pytest.raises(ConfigError, match="no column 'b'"):
        choose_columns(path, [row], "label", ["b"])
    with pytest.raises(ConfigError, match="beside 'label'"):
        choose_columns(path, [row], "label", ["label"])


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        list(rows_of(tmp_path / "gone.csv"))


def test_more_rows_than_the_first_tell_the_kind(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,label\n404,a\nmy page says 404,b\n")
    assert not choose_columns(path, list(rows_of(path)), "label", None).numbers
    path.write_text("age,size,label\n,1,a\n3,2,b\n")
    rows = list(rows_of(path))
    assert choose_columns(path, rows, "label", ["age", "size"]).numbers
    assert choose_columns(path, rows, "label", ["age", "size"]).names == ["age", "size"]
    with pytest.raises(DataError, match="age is empty"):
        choose_columns(path, rows, "label", None).value(path, rows[0])
    assert not choose_columns(path, rows, "label", ["size"], numbers=False).numbers


def test_the_ending_tells_the_delimiter(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("a, b, c\tlabel\nx\ty\n")
    assert next(rows_of(path)).cells == {"a, b, c": "x", "label": "y"}


def test_a_number_that_no_float_holds(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"a": 1, "label": 2}\n{"a": 1' + "0" * 400 + ', "label": 2}\n')
    rows = list(rows_of(path))
    with pytest.raises(DataError, match="which is no number"):
        choose_columns(path, rows[:1], "label", None).value(path, rows[1])


def test_decimal_commas_and_spreadsheets(tmp_path):
    path = write(tmp_path, "a;b;label\n1,5;2;x\n2,5;3;y\n")
    with pytest.raises(DataError, match="a is '1,5': write numbers with a decimal point"):
        choose_columns(path, list(rows_of(path)), "label", None)
    with pytest.raises(DataError, match="save it as CSV"):
        is_table(tmp_path / "t.xlsx")
