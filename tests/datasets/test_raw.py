"""Files of users and publishers are found, listed and read, and never trusted."""

import os
import zipfile

import pytest

from kshot.datasets import raw
from kshot.datasets.raw import (
    UnreadableError,
    class_lists,
    copy_mark,
    locate,
    raw_files,
    read_table,
)
from kshot.errors import DataError


def write(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def archive_of(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def contents(path):
    with raw_files(path) as files:
        return {file.path: file.read() for file in files}


def test_folder_and_archive_give_the_same_files_in_the_same_order(tmp_path, pack):
    for name in ("a/2", "a/10", "a-b/1", "a b/1", "z", "B/1"):
        (tmp_path / "top" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "top" / name).write_text(name)
    loose = contents(tmp_path / "top")
    packed = contents(pack(tmp_path / "top", tmp_path / "top.zip"))
    assert list(loose.items()) == list(packed.items())
    assert list(loose) == ["B/1", "a/10", "a/2", "a b/1", "a-b/1", "z"]


def test_hidden_files_are_left_out(tmp_path, pack):
    top = tmp_path / "top"
    for name in ("a/x.png", "a/.x.png", ".hidden/x.png", "__MACOSX/a/x.png", ".DS_Store"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text("")
    assert list(contents(top)) == ["a/x.png"]
    assert list(contents(pack(top, tmp_path / "top.zip"))) == ["a/x.png"]


def test_links_are_followed_but_not_in_circles(tmp_path):
    write(tmp_path / "elsewhere", x="1")
    top = write(tmp_path / "top", y="2")
    (top / "linked").symlink_to(tmp_path / "elsewhere")
    (top / "up").symlink_to(tmp_path)
    (top / "self").symlink_to(top)
    assert contents(top) == {"linked/x": b"1", "y": b"2"}


def test_a_mark_changes_with_the_file(tmp_path, pack):
    top = write(tmp_path / "top", x="one")

    def mark(path):
        with raw_files(path) as files:
            return files[0].mark

    loose, packed = mark(top), mark(pack(top, tmp_path / "1.zip"))
    assert mark(top) == loose
    assert mark(pack(top, tmp_path / "2.zip")) == packed
    (top / "x").write_text("two")
    os.utime(top / "x", ns=(10**18, 10**18))
    assert mark(top) != loose
    assert mark(pack(top, tmp_path / "3.zip")) != packed


def test_files_that_cannot_be_read_say_so(tmp_path, monkeypatch):
    top = write(tmp_path / "top", big="12345")
    (top / "broken").symlink_to(tmp_path / "nowhere")
    os.mkfifo(top / "pipe")  # reading one would wait for ever
    monkeypatch.setattr(raw, "MAX_FILE", 4)
    with raw_files(top) as files:
        reasons = {}
        for file in files:
            with pytest.raises(UnreadableError) as caught:
                file.read()
            reasons[file.path] = str(caught.value)
    assert reasons["broken"] == "No such file or directory"
    assert reasons["pipe"] == "not a regular file"
    assert reasons["big"].startswith("larger than")


def test_a_name_that_is_no_utf8_can_be_printed(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    try:
        (tmp_path / name).write_text("x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert list(contents(tmp_path)) == ["caf\\xe9"]


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match="nothing at"), raw_files(tmp_path / "missing"):
        pass


def test_no_archive(tmp_path):
    path = tmp_path / "data.tar.gz"
    path.write_bytes(b"\x1f\x8b not a zip")
    with pytest.raises(DataError, match=r"data.tar.gz is no zip archive"), raw_files(path):
        pass


@pytest.mark.parametrize("keep", [10, 1000, 5000])
def test_a_truncated_archive(tmp_path, keep):
    path = archive_of(tmp_path / "a.zip", {f"{i}.png": os.urandom(100) for i in range(50)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="damaged or incomplete"), raw_files(path):
        pass


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_member(tmp_path, compression):
    path = archive_of(tmp_path / "a.zip", {"cat/1.png": b"abc" * 100}, compression)
    data = bytearray(path.read_bytes())
    data[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    with raw_files(path) as (file,), pytest.raises(DataError, match=r"cat/1.png is damaged"):
        file.read()


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "..\\evil"])
def test_members_outside_the_folder_are_refused(tmp_path, name):
    path = archive_of(tmp_path / "a.zip", {"fine.png": b"x", name: b"x"})
    with pytest.raises(DataError, match="outside its folder"), raw_files(path):
        pass


def test_a_bomb_by_ratio_is_refused(tmp_path):
    zeros = {f"{i}.png": bytes(2**20) for i in range(5)}
    path = archive_of(tmp_path / "a.zip", zeros, zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match="times its size"), raw_files(path):
        pass


def test_a_bomb_by_one_member_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(raw, "MAX_FILE", 2**20)
    path = archive_of(tmp_path / "a.zip", {"big.png": os.urandom(2**20 + 1)})
    with pytest.raises(DataError, match="unpacks to 1 MiB"), raw_files(path):
        pass


def test_an_encrypted_archive_says_so(tmp_path):
    path = archive_of(tmp_path / "a.zip", {"x.png": b"x"})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag in the archive's directory
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a.zip is encrypted: unpack it"), raw_files(path):
        pass


def test_errors_of_the_reader_are_not_blamed_on_the_archive(tmp_path):
    path = archive_of(tmp_path / "a.zip", {"x.png": b"x"})
    with pytest.raises(OSError, match="mine"), raw_files(path):
        raise OSError("mine")


def test_locate_prefers_the_given_path(tmp_path, monkeypatch):
    monkeypatch.delenv("KSHOT_DATA", raising=False)
    assert locate(None, "a") is None
    write(tmp_path / "mine", b="")
    write(tmp_path / "shared", a="", b="")
    monkeypatch.setenv("KSHOT_DATA", str(tmp_path / "shared"))
    assert locate(None, "a", "b") == tmp_path / "shared" / "a"
    assert locate(None, "c") is None
    assert locate(str(tmp_path / "mine"), "a", "b") == tmp_path / "mine" / "b"
    with pytest.raises(DataError, match="none of c, d"):
        locate(str(tmp_path / "mine"), "c", "d")
    with pytest.raises(DataError, match="there is nothing at"):
        locate(str(tmp_path / "other"), "a")
    with pytest.raises(DataError, match="b is a file: give the folder"):
        locate(str(tmp_path / "mine" / "b"), "b")


def test_a_wrong_kshot_data_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("KSHOT_DATA", str(tmp_path / "missing"))
    with pytest.raises(DataError, match=r"KSHOT_DATA names .*missing, which is no folder"):
        locate(None, "a")
    assert locate(str(write(tmp_path / "mine", b="")), "b") == tmp_path / "mine" / "b"


def test_a_folder_without_files_is_not_there(tmp_path, monkeypatch):
    (tmp_path / "a" / "deeper").mkdir(parents=True)
    monkeypatch.setenv("KSHOT_DATA", str(tmp_path))
    assert locate(None, "a") is None
    write(tmp_path / "a" / "deeper", x="")
    assert locate(None, "a") == tmp_path / "a"


def test_a_replaced_copy_has_another_mark(tmp_path):
    assert copy_mark(None) is None
    (tmp_path / "copy").write_text("one")
    first = copy_mark(tmp_path / "copy")
    assert copy_mark(tmp_path / "copy") == first
    os.utime(tmp_path / "copy", ns=(1, 1))
    assert copy_mark(tmp_path / "copy") != first


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("omniglot-vinyals", (1028, 172, 423)),
        ("cifar-fs", (64, 16, 20)),
        ("fc100", (60, 20, 20)),
        ("mini-imagenet", (64, 16, 20)),
        ("tiered-imagenet", (351, 97, 160)),
    ],
)
def test_published_class_lists(name, counts):
    lists = class_lists(name)
    assert tuple(map(len, lists.values())) == counts
    assert len(set().union(*lists.values())) == sum(counts)


@pytest.fixture
def table(tmp_path):
    def read(text, *columns, **options):
        (tmp_path / "t.csv").write_bytes(text)
        with raw_files(tmp_path) as (file,):
            return read_table(file, *columns, **options)

    return read


def test_tables(table):
    assert table(b"a,b,c\n1,2,3\n4,5,6\n", "c", "a") == [("3", "1"), ("6", "4")]
    assert table(b'\xef\xbb\xbfa,b\r\n"x, y",2\r\n', "a") == [("x, y",)]
    assert table(b"a\tb\n1\t2\n", "b", delimiter="\t") == [("2",)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "no column a, b in its first line: it is empty"),
        (b"a,c\n1,2\n", "no column b in its first line: a, c"),
        (b"a,b\n1,2\n3\n", "lacks a value in row 3"),
        (b"a,b\n\xff\xfe,2\n", "cannot be read as a CSV file"),
        (b'a,b\n"1"x,2\n', "cannot be read as a CSV file"),
    ],
)
def test_bad_tables(table, text, says):
    with pytest.raises(DataError, match=says):
        table(text, "a", "b")
