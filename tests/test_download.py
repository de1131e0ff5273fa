"""networks.download against a server on this machine that misbehaves in every known way."""

import hashlib
import os
import random
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import Mock

import pytest
from tqdm import tqdm

from helpers.networks.download import DownloadError, fetch, is_whole

BODY = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
OLD = b"three weeks of training"
OFFLINE = "http://127.0.0.1:1/weights.pth"  # a port that nothing listens at


class Handler(BaseHTTPRequestHandler):
    """Answers in the manner that server.manner names."""

    def do_GET(self):
        server, manner = self.server, self.server.manner
        server.requests += 1
        if isinstance(manner, int):
            return self.send_error(manner)
        if manner == "silent":
            return server.closing.wait()
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        server.together.wait()
        body = bytes(len(BODY)) if manner == "garbage" else BODY
        self.wfile.write(body[:1000] if manner in ("breaks off", "stalls") else body)
        if manner == "stalls":
            server.closing.wait()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.url = f"http://127.0.0.1:{server.server_port}/weights.pth"
        server.manner, server.requests = "ok", 0
        server.closing, server.together = threading.Event(), threading.Barrier(1)
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield server
        server.closing.set()
        server.shutdown()


@pytest.fixture
def path(tmp_path):
    """An old file with another content, such as a reader's own."""
    (tmp_path / "weights.pth").write_bytes(OLD)
    return tmp_path / "weights.pth"


def refusal(url, path, timeout=5):
    with pytest.raises(DownloadError) as caught:
        fetch(url, path, SHA256, timeout)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert re.fullmatch(r"(?!.*\. ).*\.", str(caught.value)), "not one sentence"
    return str(caught.value)


def assert_untouched(path):
    assert list(path.parent.iterdir()) == [path] and path.read_bytes() == OLD


def test_download(server, tmp_path, capfd):
    path = tmp_path / "new" / "folder" / "weights.pth"
    assert fetch(server.url, str(path), SHA256[:8].upper()) == path
    assert path.read_bytes() == BODY and list(path.parent.iterdir()) == [path]
    assert capfd.readouterr() == ("", "")  # no terminal, so no bar; and pooch logs nothing
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode  # a cache may be shared
    assert fetch(OFFLINE, path, SHA256) == path and server.requests == 1


def test_progress_bar_on_a_terminal(server, path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("pooch.downloaders.tqdm", tqdm)  # a widget, once a test has started IPython
    fetch(server.url, path, SHA256)
    last = capsys.readouterr().err.rstrip().rpartition("\r")[2]
    assert last.startswith("100%") and "300k/300k" in last


def test_a_failure_keeps_the_old_file_and_the_next_call_replaces_it(server, path):
    for manner, words in {
        500: "answered 500 Internal Server Error",
        "silent": "sent nothing for 0.3 seconds",
        "stalls": "sent nothing for 0.3 seconds",
        "breaks off": "could not be downloaded (ChunkedEncodingError)",
        "garbage": "sent another file",
    }.items():
        server.manner = manner
        timeout = 0.3 if "0.3" in words else 5
        assert f"{server.url} {words}" in refusal(server.url, path, timeout)
        assert_untouched(path)
        server.manner = "ok"
        assert fetch(server.url, path, SHA256).read_bytes() == BODY
        path.write_bytes(OLD)


def test_addresses_that_lead_nowhere(server, path):
    for url in (OFFLINE, "", "weights.pth", "file:///etc/hosts", "http://[", "http://a..b/", None):
        assert f"{url} could not be downloaded (" in refusal(url, path)
        assert_untouched(path)


@pytest.mark.posix
def test_places_that_no_file_can_take(server, path):
    os.mkfifo(path.with_name("pipe"))
    for other in (path.parent, path.with_name("pipe"), Path("/dev/null")):
        assert "is a folder or a device" in refusal(OFFLINE, other)
        assert other.exists() and not other.is_file()
    assert "cannot be written" in refusal(server.url, path / "below")
    assert "(File name too long)" in refusal(server.url, path.with_name("w" * 300))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_or_an_interrupt_leaves_nothing(server, path, monkeypatch, error):
    monkeypatch.setattr("requests.Response.iter_content", Mock(side_effect=error))
    with pytest.raises((DownloadError, KeyboardInterrupt), match="No space|^$"):
        fetch(server.url, path, SHA256)
    assert_untouched(path)


def test_several_at_once(server, path):
    server.together = threading.Barrier(4, timeout=5)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(fetch, [server.url] * 4, [path] * 4, [SHA256] * 4))
    assert server.requests == 4 and path.read_bytes() == BODY
    assert list(path.parent.iterdir()) == [path]


def test_is_whole(path):
    digest = hashlib.sha256(OLD).hexdigest()
    assert is_whole(str(path), digest) and not is_whole(path, digest[:8] + SHA256[8:])
    for other in (path.parent, path.parent / "none", path / "below", path.with_name("w" * 300)):
        assert not is_whole(other, digest)
    for wrong in ("", digest[:7], digest + "0", "g" * 64, None):
        with pytest.raises(ValueError, match="8 to 64 hexadecimal"):
            fetch(OFFLINE, path, wrong)
