"""A file from the web, by pooch: its hash checked on every use, and never half there."""

import hashlib
import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import torch


class DownloadError(RuntimeError):
    """One sentence for the reader: which download failed, why, and what to do."""


def fetch(url, path, sha256, timeout=20):
    """Download `url` to `path`, unless the right file is there already.

    `sha256`: in hexadecimal, or its first 8 characters or more (torchvision's file names carry 8);
    `timeout`: seconds of silence from the server before giving up. Returns the Path of a file whose
    hash was checked in this call. Only a whole file takes the place of an old one, and several
    processes may fetch the same. Raises DownloadError (network, disk, content) and ValueError (not
    a hash).
    """
    path = Path(path)
    if is_whole(path, sha256):
        return path
    if os.path.exists(path) and not os.path.isfile(path):
        raise DownloadError(f"{path} is a folder or a device: name a file to download to.")
    # Only a download needs them, and requests takes up to a second to import.
    import pooch
    import requests

    # Not tempfile's name: such a file only its owner may read, also after it is renamed.
    partial = path.with_name(f"{path.name}.{uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        bar = sys.stderr.isatty()
        pooch.HTTPDownloader(bar, chunk_size=1 << 16, timeout=timeout)(url, partial, None)
        if not is_whole(partial, sha256):
            raise DownloadError(
                f"{url} sent another file (its SHA-256 does not begin with {sha256[:8]}), perhaps "
                "a login page: look at it in a browser, then try again."
            )
        os.replace(partial, path)
    except (requests.RequestException, ValueError) as error:
        if isinstance(error, requests.HTTPError):
            trouble = f"answered {error.response.status_code} {error.response.reason}"
        elif "timed out" in str(error):  # requests has several classes for it
            trouble = f"sent nothing for {timeout} seconds"
        else:
            trouble = f"could not be downloaded ({type(error).__name__})"
        raise DownloadError(
            f"{url} {trouble}: check the address and the network, then try again."
        ) from None
    except OSError as error:
        if is_whole(path, sha256):  # another process was faster, and Windows refuses to replace it
            return path
        raise DownloadError(
            f"{path} cannot be written ({error.strerror}): free space on the disk, or choose a "
            "folder you may write to."
        ) from None
    finally:
        with suppress(OSError):
            partial.unlink()
    return path


def load_whole(path, sha256, mend):
    """Load the tensors of a file with this hash; RuntimeError, with a way to `mend` it, if not."""
    if not is_whole(path, sha256):
        raise RuntimeError(f"The weights ({Path(path).name}) are missing or altered: {mend}")
    return torch.load(path, map_location="cpu", weights_only=True)


def is_whole(path, sha256):
    """Tell whether `path` is a readable file with this hash (hexadecimal, 8 characters or more)."""
    if not re.fullmatch("[0-9a-fA-F]{8,64}", str(sha256)):
        raise ValueError(f"sha256 is {sha256!r}: give 8 to 64 hexadecimal characters.")
    try:
        return os.path.isfile(path) and sha256_of(path).startswith(sha256.lower())
    except OSError:
        return False


def sha256_of(path):
    """Return the SHA-256 of a file in 64 hexadecimal characters."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
