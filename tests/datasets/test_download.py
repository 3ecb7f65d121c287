"""Downloads from a real server on this machine: whole, checked, retried, or explained."""

import hashlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from kshot.datasets import download
from kshot.datasets.download import fetch
from kshot.errors import DataError

BODY = bytes(range(256)) * 2000
CHECKSUM = f"md5:{hashlib.md5(BODY).hexdigest()}"


class Server(ThreadingHTTPServer):
    """Answers each request by the next of `script`, and by the last one from then on."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = ["good"]
        self.asked = []

    def url(self, path="data.zip"):
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        script = self.server.script
        act = script.pop(0) if len(script) > 1 else script[0]
        self.server.asked.append((self.path, act))
        if act == "drop":
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(404 if act == "missing" else 200)
        body = {"missing": b"no", "other": BODY[::-1]}.get(act, BODY)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:1000] if act == "truncated" else body)
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("time.sleep", lambda _: None)  # pooch's waits between trials
    with Server() as made:
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        yield made
        made.shutdown()


def kept(cache):
    return [path for path in cache.rglob("*") if path.is_file()]


def test_a_good_file_is_kept_and_fetched_once(server, cache):
    path = fetch([server.url()], CHECKSUM, place="there")
    assert path.name == "data.zip"
    assert path.read_bytes() == BODY
    assert kept(cache) == [path]
    server.script = ["missing"]
    assert fetch([server.url()], CHECKSUM, place="there") == path
    assert len(server.asked) == 1


def test_a_file_that_was_damaged_since_is_fetched_again(server, cache):
    path = fetch([server.url()], CHECKSUM, place="there")
    path.write_bytes(b"damaged")
    assert fetch([server.url()], CHECKSUM, place="there").read_bytes() == BODY


def test_another_checksum_is_refused_and_not_kept(server, cache):
    server.script = ["other"]
    with pytest.raises(DataError, match="could not be downloaded"):
        fetch([server.url()], CHECKSUM, place="there")
    assert kept(cache) == []


def test_a_mirror_helps(server, cache):
    server.script = ["missing"] * (1 + download.RETRIES) + ["good"]
    path = fetch([server.url("a/data.zip"), server.url("b/other.zip")], CHECKSUM, place="there")
    assert path.name == "data.zip"
    assert path.read_bytes() == BODY
    assert server.asked[0] == ("/a/data.zip", "missing")
    assert server.asked[-1] == ("/b/other.zip", "good")


@pytest.mark.parametrize("trouble", ["drop", "truncated", "other"])
def test_a_passing_trouble_is_survived(server, cache, trouble):
    server.script = [trouble, "good"]
    path = fetch([server.url()], CHECKSUM, place="there")
    assert path.read_bytes() == BODY
    assert len(server.asked) == 2
    assert kept(cache) == [path]


@pytest.mark.parametrize("trouble", ["drop", "truncated", "missing"])
def test_a_lasting_trouble_is_explained(server, cache, trouble):
    server.script = [trouble]
    with pytest.raises(DataError) as caught:
        fetch([server.url()], CHECKSUM, place="the folder x of KSHOT_DATA")
    assert server.url() in str(caught.value)
    assert "the folder x of KSHOT_DATA" in str(caught.value)
    assert len(server.asked) == 1 + download.RETRIES
    assert kept(cache) == []


def test_no_network(server, cache):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/data.zip"
        with pytest.raises(DataError) as caught:
            fetch(
                [url, url.replace("data", "mirror")], CHECKSUM, place="the folder x of KSHOT_DATA"
            )
    message = str(caught.value)
    assert "data.zip could not be downloaded" in message
    assert "(Connection refused)" in message
    assert f"get it from {url} and put it into the folder x of KSHOT_DATA" in message
    assert len(message) < 250
    assert "\n" not in message


def test_an_interruption_leaves_nothing(server, cache, monkeypatch):
    def interrupt(self, done):
        raise KeyboardInterrupt

    monkeypatch.setattr(download._Bar, "update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch([server.url()], CHECKSUM, place="there")
    assert kept(cache) == []
