"""A file from the web, by pooch: its hash checked on every use, and never half there."""

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from tqdm import tqdm


class DownloadError(RuntimeError):
    """One sentence for the reader: which download failed, why, and what to do."""


def fetch(url, path, sha256, timeout=20):
    """Download `url` to `path`, unless the right file is there already.

    `sha256`: in hexadecimal, or its first 8 characters or more (torchvision's file names carry 8);
    `timeout`: seconds of silence from the server before giving up. Returns the Path of a file whose
    hash was checked in this call, also if it was there before. Raises DownloadError (network, disk,
    content) and ValueError (not a hash).

    Only a whole file with the right hash takes the place of an old one. Each call writes to a
    temporary name of its own, so several processes may fetch the same file.
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
        # pooch sets the total; until then 1, as a bar without one counts as no bar.
        with tqdm(desc=path.name, total=1, unit="B", unit_scale=True, disable=None) as bar:
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
        # While the body arrives, requests calls a timeout a ConnectionError.
        elif isinstance(error, requests.Timeout) or "timed out" in str(error):
            trouble = f"sent nothing for {timeout} seconds"
        else:
            trouble = f"could not be downloaded ({type(error).__name__})"
        raise DownloadError(
            f"{url} {trouble}: check the address and the network, then try again."
        ) from None
    except OSError as error:
        raise DownloadError(
            f"{path} cannot be written ({error.strerror}): free space on the disk, or choose a "
            "folder you may write to."
        ) from None
    finally:
        with suppress(OSError):
            partial.unlink()
    return path


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
