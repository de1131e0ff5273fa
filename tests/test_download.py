"""networks.download against a server on this machine that misbehaves in every known way."""

import functools
import hashlib
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from helpers.networks import download
from helpers.networks.download import DownloadError, fetch, is_whole, sha256_of

BODY = random.Random(0).randbytes(300_000)
HALF = len(BODY) // 2
DIGEST = hashlib.sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers in the manner that server.manner names."""

    def do_GET(self):
        server, asked = self.server, self.headers["Range"]
        server.asked.append(asked)
        if isinstance(server.manner, int):
            return self.send_error(server.manner)
        if server.manner == "not http":
            return self.wfile.write(b"hello " * 1000 + b"\r\n\r\n")
        if server.manner == "silent":
            return server.closing.wait()
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0
        if server.manner == "ignores range":
            start = 0
        if start >= len(BODY):
            return self.send_error(416)
        body = BODY[start:] if server.manner != "garbage" else b"x" * (len(BODY) - start)
        self.send_response(206 if start else 200)
        if server.manner.startswith("chunked"):
            self.send_header("Transfer-Encoding", "chunked")
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        elif server.manner != "no length":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.manner in ("stalls", "breaks off", "resets", "interrupts", "chunked, breaks off"):
            body = body[:HALF]
        server.gate.wait()
        server.sent += len(body)
        self.wfile.write(body)
        if server.manner == "interrupts":
            time.sleep(0.3)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        if server.manner in ("stalls", "interrupts"):
            server.closing.wait()
        if server.manner == "resets":
            time.sleep(0.3)  # or the reset overtakes the bytes
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()

    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None
    server.manner, server.asked, server.sent = "ok", [], 0
    server.closing, server.gate = threading.Event(), threading.Event()
    server.gate.set()
    server.url = f"http://127.0.0.1:{server.server_port}/weights.pth"
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    yield server
    server.closing.set()
    server.gate.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth"


def part_of(path):
    return path.with_name(path.name + ".part")


def refusal(url, path, sha256=DIGEST, timeout=5):
    """The sentence of the error, after checking that it is one, and that nothing false remains."""
    with pytest.raises(DownloadError) as caught:
        fetch(url, path, sha256, timeout)
    sentence = str(caught.value)
    assert sentence.startswith(str(url)) and sentence.endswith(".")
    assert "\n" not in sentence
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    assert not Path(path).is_file() and not list(Path(path).parent.glob("*.lock"))
    return sentence


def assert_recovers(server, path):
    server.manner = "ok"
    assert fetch(server.url, path, DIGEST) == path
    assert path.read_bytes() == BODY
    assert list(path.parent.iterdir()) == [path]


# What goes well


@pytest.mark.parametrize("sha256", [DIGEST, DIGEST[:8], DIGEST[:12].upper()])
def test_download(server, tmp_path, sha256):
    path = tmp_path / "new" / "folder" / "weights.pth"
    assert fetch(server.url, str(path), sha256) == path
    assert path.read_bytes() == BODY and list(path.parent.iterdir()) == [path]
    assert server.asked == [None]


@pytest.mark.parametrize("manner", ["chunked", "no length"])
def test_length_not_announced(server, path, manner):
    server.manner = manner
    fetch(server.url, path, DIGEST)
    assert path.read_bytes() == BODY


def test_progress_bar(server, path, capsys):
    part_of(path).write_bytes(BODY[:HALF])
    fetch(server.url, path, DIGEST)
    last = capsys.readouterr().err.split("\r")[-1]
    assert last.startswith("weights.pth: 100%") and "300k/300k" in last


def test_whole_file_needs_neither_network_nor_lock(path, monkeypatch):
    monkeypatch.setattr(download, "_turn", None)  # a folder of weights may be read-only
    path.write_bytes(BODY)
    assert fetch("http://127.0.0.1:1/", path, DIGEST[:8]) == path


def test_broken_file_is_replaced(server, path):
    path.write_bytes(BODY[:-1])
    assert_recovers(server, path)


# Resuming


def test_resume_asks_for_the_rest_only(server, path):
    part_of(path).write_bytes(BODY[:100_000])
    assert_recovers(server, path)
    assert server.asked == ["bytes=100000-"] and server.sent == len(BODY) - 100_000


def test_whole_part_needs_no_network(path):
    part_of(path).write_bytes(BODY)
    assert fetch("http://127.0.0.1:1/", path, DIGEST).read_bytes() == BODY
    assert not part_of(path).exists()


def test_server_that_ignores_ranges(server, path):
    part_of(path).write_bytes(BODY[:HALF])
    server.manner = "ignores range"
    assert fetch(server.url, path, DIGEST).read_bytes() == BODY
    assert server.asked == [f"bytes={HALF}-"]


def test_part_longer_than_the_file(server, path):
    part_of(path).write_bytes(BODY + b"more")
    assert_recovers(server, path)
    assert server.asked == [f"bytes={len(BODY) + 4}-", None]


def test_part_of_another_file_starts_again(server, path):
    part_of(path).write_bytes(b"x" * HALF)
    assert_recovers(server, path)
    assert server.asked == [f"bytes={HALF}-", None]


@pytest.mark.parametrize(
    "manner, words",
    [
        ("stalls", "sent nothing for 0.8 seconds: try again, it goes on where it stopped"),
        ("breaks off", "broke off after 150000 of 300000 bytes"),
        ("resets", "Connection reset by peer"),
        ("chunked, breaks off", "IncompleteRead"),
    ],
)
def test_half_a_download_is_resumed(server, path, manner, words):
    server.manner = manner
    assert words in refusal(server.url, path, timeout=0.8)
    kept = part_of(path).stat().st_size
    assert 0 < kept <= HALF
    assert_recovers(server, path)
    assert server.asked == [None, f"bytes={kept}-"]


def test_breaking_off_is_noticed_without_a_bar(server, path, monkeypatch):
    monkeypatch.setattr(download, "tqdm", functools.partial(download.tqdm, disable=True))
    server.manner = "breaks off"
    assert "broke off" in refusal(server.url, path)
    assert_recovers(server, path)


@pytest.fixture
def interruptible():
    """A job in the background of a shell ignores the signal, and its children with it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_keyboard_interrupt_is_raised_and_resumed(server, path):
    server.manner = "interrupts"
    with pytest.raises(KeyboardInterrupt):
        fetch(server.url, path, DIGEST)
    assert list(path.parent.iterdir()) == [part_of(path)]
    kept = part_of(path).stat().st_size
    assert_recovers(server, path)
    assert kept > 0 and server.asked[1] == f"bytes={kept}-"


def test_killed_process_is_resumed_and_leaves_no_lock_behind(server, path):
    server.manner = "stalls"
    code = "import sys; from helpers.networks.download import fetch; fetch(*sys.argv[1:])"
    child = subprocess.Popen([sys.executable, "-c", code, server.url, path, DIGEST])
    while not (part_of(path).exists() and part_of(path).stat().st_size):
        assert child.poll() is None
        time.sleep(0.01)
    child.kill()
    child.wait()
    assert path.with_name("weights.pth.lock").exists()
    assert_recovers(server, path)
    assert server.asked[1].startswith("bytes=")


# What goes wrong


@pytest.mark.parametrize(
    "code, advice",
    [(404, "address"), (403, "address"), (429, "later"), (500, "later"), (503, "later")],
)
def test_error_status(server, path, code, advice):
    server.manner = code
    sentence = refusal(server.url, path)
    assert f"answered {code}" in sentence and advice in sentence
    assert_recovers(server, path)


def test_silent_server(server, path):
    server.manner = "silent"
    started = time.monotonic()
    assert "sent nothing for 0.8 seconds" in refusal(server.url, path, timeout=0.8)
    assert time.monotonic() - started < 4
    assert_recovers(server, path)


def test_connection_refused(server, path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/weights.pth"
        assert "(Connection refused)" in refusal(url, path)
    assert_recovers(server, path)


def test_answer_that_is_not_http(server, path):
    server.manner = "not http"
    sentence = refusal(server.url, path)
    assert "could not be downloaded (hello" in sentence and len(sentence) < 300
    assert_recovers(server, path)


@pytest.mark.parametrize("left", [b"", BODY[:HALF]])
def test_garbage_is_removed(server, path, left):
    part_of(path).write_bytes(left)
    server.manner = "garbage"
    assert "something else than expected" in refusal(server.url, path)
    assert not list(path.parent.iterdir())
    assert_recovers(server, path)


@pytest.mark.parametrize("url", ["", "weights.pth", "file:///weights.pth", "ftp://host/w", None])
def test_only_web_addresses(path, url):
    assert "https://" in refusal(url, path)


@pytest.mark.parametrize(
    "url", ["http://", "http://[", "http://127.0.0.1:x/", "http://127.0.0.1/a b"]
)
def test_malformed_address(path, url):
    assert "could not be downloaded" in refusal(url, path)


@pytest.mark.parametrize("sha256", ["", DIGEST[:7], DIGEST + "0", "g" * 64, None])
def test_bad_digest(path, sha256):
    for call in (lambda: is_whole(path, sha256), lambda: fetch("http://h/", path, sha256)):
        with pytest.raises(ValueError, match="8 to 64 hexadecimal"):
            call()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's always-full device")
def test_full_disk(server, path):
    part_of(path).symlink_to("/dev/full")
    assert "No space left on device" in refusal(server.url, path)


def test_place_that_cannot_be_written(server, path):
    path.mkdir()
    assert "cannot be saved" in refusal(server.url, path)
    (path / "file").touch()
    assert "cannot be saved" in refusal(server.url, path / "file" / "weights.pth")


# Several at once


@pytest.mark.parametrize("manner", ["ok", "breaks off"])
def test_many_at_once_take_turns(server, path, manner, capsys):
    results = []

    def run():
        try:
            results.append(fetch(server.url, path, DIGEST))
        except DownloadError as error:
            results.append(str(error))

    server.manner = manner
    server.gate.clear()
    # Each opens the lock file itself, so that threads exclude each other as processes do.
    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    printed, deadline = "", time.monotonic() + 5
    while printed.count("Another process is downloading weights.pth") < 7:
        assert time.monotonic() < deadline, printed
        printed += capsys.readouterr().out
        time.sleep(0.01)
    server.gate.set()
    for thread in threads:
        thread.join()
    # One that breaks off leaves its half to the next in the queue.
    assert server.asked == ([None] if manner == "ok" else [None, f"bytes={HALF}-"])
    assert sum(result == path for result in results) == 9 - len(server.asked)
    assert list(path.parent.iterdir()) == [path] and path.read_bytes() == BODY


def test_turns_outlive_the_lock_file(path):
    """The first of three leaves and removes the lock file while the second waits for it."""
    inside, order, leave = [], [], [threading.Event() for _ in range(3)]

    def run(me):
        with download._turn(path):
            inside.append(me)
            order.append(list(inside))
            leave[me].wait(5)
            inside.remove(me)

    threads = [threading.Thread(target=run, args=[me]) for me in range(3)]
    for me, thread in enumerate(threads):
        thread.start()
        time.sleep(0.1)
        if me == 1:
            leave[0].set()
            time.sleep(0.1)
    for me, thread in enumerate(threads):
        leave[me].set()
        thread.join()
    assert order == [[0], [1], [2]] and not list(path.parent.iterdir())


@pytest.mark.parametrize("error", [None, OSError(38, "Function not implemented")])
def test_where_there_are_no_locks(server, path, monkeypatch, error):
    if error is None:
        monkeypatch.setattr(download, "fcntl", None)
    else:

        def deny(*_):
            raise error

        monkeypatch.setattr(download.fcntl, "flock", deny)
    assert_recovers(server, path)


# Digests


def test_digest(path):
    path.write_bytes(b"abc")  # the first example of FIPS 180-2
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(path) == digest
    assert is_whole(path, digest) and is_whole(str(path), digest[:8].upper())
    assert not is_whole(path, digest[:-1] + "0")
    assert not is_whole(path.parent, digest) and not is_whole(path.parent / "none", digest)
