"""Print an answer of docs/answers, ready to paste into its thread.

    python tools/answers.py NAME [ADDRESS]    NAME as in docs/answers/NAME.md

Its links lead to the site on GitHub Pages, at the newest tag, or to ADDRESS.
"""

import sys
from pathlib import Path

import binder_link

ANSWERS = Path(__file__).resolve().parent.parent / "docs" / "answers"


def known() -> list[str]:
    """The names of the answers."""
    return sorted(file.stem for file in ANSWERS.glob("*.md"))


def address() -> str:
    """Where the site of the newest tag is published; ValueError, in one sentence, if nowhere."""
    host, *path = binder_link.remote_place().split("/")
    tags = binder_link.git("tag", "--sort=-creatordate").split()
    if host != "gh":
        raise ValueError("The git remote is not on github.com: give ADDRESS, where the site is.")
    if not tags:
        raise ValueError("There is no tag here: `git tag v1.0.0` makes the first, or give ADDRESS.")
    owner, name = path
    return f"https://{owner}.github.io/{name}/{tags[0]}"


def answer(name: str, site: str = "") -> str:
    """What stands below the rule of docs/answers/NAME.md, with links to `site`, or to address()."""
    if name not in known():
        wrong = f"There is no answer {name}" if name else "NAME is missing"
        raise ValueError(f"{wrong}: name one of {', '.join(known())}.")
    text = (ANSWERS / f"{name}.md").read_text("utf-8").partition("\n---\n")[2]
    return text.strip().replace("{site}", (site or address()).rstrip("/"))


if __name__ == "__main__":
    try:
        print(answer(*(sys.argv[1:3] or [""])))
    except ValueError as error:
        sys.exit(str(error))
