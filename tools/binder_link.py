"""Print the Binder link that opens a notebook as it is at a tag.

    python tools/binder_link.py NOTEBOOK TAG    in the repository: what `make binder-link` runs

Host, owner and repository are those of the git remote: origin, or else the first one.
"""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, urlsplit

import binder_lock


def git(*args):
    """What git prints: nothing where it fails, as it does outside of a repository."""
    try:
        return subprocess.run(["git", *args], capture_output=True, encoding="utf-8").stdout
    except FileNotFoundError:
        return ""


def place(url):
    """Where mybinder.org finds the repository with this remote URL: gh/OWNER/NAME or gl/PATH."""
    scp = re.match(r"(?:[^@/]+@)?([^@:/]+):(?!//)(.+)", url)  # git@github.com:owner/name.git
    host, path = scp.groups() if scp else (urlsplit(url).hostname, urlsplit(url).path)
    host = (host or "this computer").lower()
    parts = re.sub(r"\.git$", "", path.strip("/")).split("/")
    if host == "github.com" and len(parts) == 2:
        return "gh/" + "/".join(map(quote, parts))
    if host == "gitlab.com" and len(parts) >= 2:
        return "gl/" + quote("/".join(parts), safe="")
    raise ValueError(
        f"The git remote (on {host}) is no repository of github.com or gitlab.com: "
        "`git remote set-url origin URL` names another."
    )


def remote_place():
    """The place of the git remote; ValueError, in one sentence, where there is none."""
    remotes = git("remote").split()
    if not remotes:
        raise ValueError(
            "There is no git remote to take owner and repository from: "
            "`git remote add origin https://github.com/OWNER/REPOSITORY` names one."
        )
    remote = "origin" if "origin" in remotes else remotes[0]
    return place(git("remote", "get-url", remote).strip())


def at(tag, file):
    """The text of a file at a tag; empty where it has none."""
    return git("show", f"refs/tags/{tag}:{file}")


def notebooks(tag):
    """Name → file of each notebook at a tag; ValueError, in one sentence, without such a tag."""
    tags = git("tag", "--sort=-creatordate").split()
    if tag not in tags:
        wrong = f"There is no tag {tag} here" if tag else "REF is missing (as in REF=v1.0.0)"
        known = f"name one of {', '.join(tags[:5])}" if tags else "`git tag v1.0.0` makes the first"
        raise ValueError(f"{wrong}: {known}.")
    files = git("ls-tree", "-r", "-z", "--name-only", f"refs/tags/{tag}", "notebooks/").split("\0")
    return {Path(file).stem: file for file in files if file.endswith(".ipynb")}


def link(notebook, tag):
    """The link; ValueError, in one sentence, for what is missing."""
    where, names = remote_place(), notebooks(tag)
    if notebook not in names:
        wrong = f"{tag} has no notebook {notebook}" if notebook else "NOTEBOOK is missing"
        known = f"name one of {', '.join(names)}" if names else "it has none at all"
        raise ValueError(f"{wrong}: {known}.")

    locked = binder_lock.pins(at(tag, binder_lock.LOCK))
    constraints = binder_lock.pins(at(tag, "constraints.txt"))
    if not locked or locked != constraints:
        wrong = "does not fit its constraints.txt" if locked else "is missing"
        raise ValueError(
            f"{binder_lock.LOCK} of {tag} {wrong}: `make binder-lock`, commit, and make a new tag."
        )

    path = quote(f"lab/tree/{names[notebook]}")
    return f"https://mybinder.org/v2/{where}/{quote(tag)}?urlpath={path}"


if __name__ == "__main__":
    try:
        print(link(*sys.argv[1:]))
    except ValueError as error:
        sys.exit(str(error))
