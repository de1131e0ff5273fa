"""One file from the web: checked, resumed, and never half there."""

import hashlib
import os
import re
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from textwrap import shorten
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm import tqdm

try:
    import fcntl
except ImportError:  # Windows: it refuses to rename a file that another process has open
    fcntl = None

CHUNK = 1 << 14  # bytes


class DownloadError(RuntimeError):
    """One sentence for the reader: which download failed, why, and what to do."""


def fetch(url, path, sha256, timeout=20):
    """Download `url` to `path`, unless a whole file is there already.

    sha256: the digest in hexadecimal, or its first 8 characters or more (torchvision's file names
        carry 8).
    timeout: seconds of silence from the server before giving up.
    Returns the Path of a file whose digest was checked in this call, also if it was there before:
    torch.hub checks neither a cached file nor sets a timeout. A broken one is fetched again.
    Raises DownloadError (network, disk, content) and ValueError (not a digest).

    The bytes gather in `path`.part, which a failed or interrupted call leaves for the next one to
    resume, and get the name `path` only when whole. Processes that fetch the same file take turns
    (`path`.lock): the first downloads, the others wait and then find it.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    if not str(url).startswith(("http://", "https://")):
        raise DownloadError(f"{url} is not a web address: give one that begins with https://.")
    if is_whole(path, sha256):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _turn(path):
            if not is_whole(path, sha256):
                path.unlink(missing_ok=True)
                _complete(part, url, sha256, timeout)
                os.replace(part, path)
    except OSError as error:
        raise DownloadError(
            f"{url} cannot be saved as {path} ({error.strerror or error}): free space on the disk, "
            "or choose a folder you may write to."
        ) from None
    return path


def is_whole(path, sha256):
    """Whether `path` is a file with this digest (hexadecimal, at least its first 8 characters)."""
    if not re.fullmatch("[0-9a-fA-F]{8,64}", str(sha256)):
        raise ValueError(f"sha256 is {sha256!r}: give 8 to 64 hexadecimal characters.")
    return Path(path).is_file() and sha256_of(path).startswith(sha256.lower())


def sha256_of(path):
    """The SHA-256 of a file, 64 hexadecimal characters; read in chunks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _complete(part, url, sha256, timeout):
    """Download what is missing of `part`; returns only when it is whole."""
    while not is_whole(part, sha256):
        resumed = part.exists()
        _append(part, url, timeout)
        if is_whole(part, sha256):
            return
        part.unlink()
        if not resumed:  # else the fault may lie in the old beginning: once more from zero
            raise DownloadError(
                f"{url} sent something else than expected (its SHA-256 does not begin with "
                f"{sha256[:8]}), perhaps a login page: look at it in a browser, then try again."
            )


def _append(part, url, timeout):
    start = part.stat().st_size if part.exists() else 0
    with _network_errors(url, timeout):
        try:
            response = _request(url, start, timeout)
        except HTTPError as error:
            if error.code != 416:  # Range Not Satisfiable: `part` is longer than the file
                raise
            error.close()
            response = _request(url, 0, timeout)
    if response.status != 206:  # the server ignores ranges and sends everything
        start = 0
    total = None if response.length is None else start + response.length
    bar = tqdm(desc=part.stem, initial=start, total=total, unit="B", unit_scale=True)
    with response, bar, part.open("ab" if start else "wb") as file:
        while chunk := _receive(response, url, timeout):
            file.write(chunk)
            bar.update(len(chunk))
    received = part.stat().st_size
    if total is not None and received < total:
        raise DownloadError(
            f"{url} broke off after {received} of {total} bytes: try again, it goes on from there."
        )


def _request(url, start, timeout):
    headers = {"User-Agent": "helpers.networks.download"}  # some servers refuse urllib's own name
    if start:
        headers["Range"] = f"bytes={start}-"
    return urlopen(Request(url, headers=headers), timeout=timeout)


def _receive(response, url, timeout):
    with _network_errors(url, timeout):
        return response.read(CHUNK)


@contextmanager
def _network_errors(url, timeout):
    """Turns what urllib and http.client raise into one DownloadError."""
    try:
        yield
    except HTTPError as error:
        error.close()
        busy = error.code == 429 or error.code >= 500
        advice = "try again later" if busy else "check the address"
        raise DownloadError(f"{url} answered {error.code} {error.reason}: {advice}.") from None
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise DownloadError(
                f"{url} sent nothing for {timeout} seconds: try again, it goes on where it stopped."
            ) from None
        # A server that does not speak HTTP is quoted here, over many lines if it likes.
        cause = shorten(str(getattr(reason, "strerror", None) or reason), 100)
        raise DownloadError(
            f"{url} could not be downloaded ({cause}): check the address and the network, then try "
            "again."
        ) from None


@contextmanager
def _turn(path):
    """One process at a time, and none left waiting for a dead one: the system frees its lock."""
    if fcntl is None:
        yield
        return
    lock = path.with_name(path.name + ".lock")
    while True:
        with lock.open("a") as file:
            _wait_for(file, path.name)
            try:
                current = os.path.samestat(os.fstat(file.fileno()), lock.stat())
            except FileNotFoundError:
                current = False
            if not current:  # its last holder removed it while we waited
                continue
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


def _wait_for(file, name):
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"Another process is downloading {name}: waiting for it.")
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
        pass  # a disk without locks: a collision is found by the digest, at the latest next time
