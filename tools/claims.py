"""Run the snippets of claims.toml and symptoms.toml again: python tools/claims.py [--held]

It prints a line for each and exits with 1 where one prints something else than is recorded. With
--held it writes into claims.toml that a claim held on the installed torch.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLAIMS, SYMPTOMS = ROOT / "claims.toml", ROOT / "symptoms.toml"

# Torch is imported once for all snippets of a call. Standard output is theirs until the end.
RUNNER = """
import contextlib, io, json, sys
import numpy, torch, torchvision

def printed(snippet):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            exec(compile(snippet, "snippet", "exec"), {"__name__": "__main__"})
        except Exception as error:
            print(f"{type(error).__name__}: {error}")
    return out.getvalue()

print(json.dumps([printed(snippet) for snippet in json.load(sys.stdin)]))
"""


@dataclass(frozen=True)
class Claim:
    """A table of claims.toml; snippet and prints without blank lines around them."""

    id: str
    sentence: str
    holds_for: str
    section: str  # notebook#label, the notebook without notebooks/ and .ipynb
    proof: str  # notebook:cell, or tests/test_x.py::test_name
    snippet: str
    prints: str
    held: str  # the newest torch on which the snippet printed this
    source: str
    figure: str = ""  # notebook:cell


def claims(path: Path = CLAIMS) -> list[Claim]:
    """The claims of a file in its order; ValueError names the table and the key that is wrong."""
    optional = {field.name: field.default == "" for field in fields(Claim)}
    read = []
    for number, table in enumerate(tomllib.loads(path.read_text("utf-8")).get("claim", []), 1):
        name = f"{path.name}, claim {table.get('id', number)}"
        for key in optional:
            if key not in table and not optional[key]:
                raise ValueError(f"{name}: {key} is missing.")
            if not isinstance(table.get(key, ""), str):
                raise ValueError(f"{name}: {key} is no text.")
        if unknown := sorted(table.keys() - optional):
            raise ValueError(f"{name}: the key {unknown[0]} is unknown.")
        read.append(Claim(**{key: text.strip("\n") for key, text in table.items()}))
    return read


def run_all(snippets: list[str]) -> list[str]:
    """What each snippet prints, in one process that knows neither this project nor a network.

    Its working directory is empty. A snippet that raises ends with the error's type and message.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    dead = "http://127.0.0.1:9"  # a download fails, and no cache of weights hides it
    environment |= {"http_proxy": dead, "https_proxy": dead, "no_proxy": ""}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", RUNNER],
            input=json.dumps(snippets),
            cwd=folder,
            env=environment | {"TORCH_HOME": folder},
            stdout=subprocess.PIPE,
            text=True,
        )
    if done.returncode:
        raise RuntimeError("No snippet ran: the process stopped, for the reason printed above.")
    return [text.strip("\n") for text in json.loads(done.stdout)]


def run(snippet: str) -> str:
    """What one snippet prints: see run_all."""
    return run_all([snippet])[0]


def recorded(path: Path) -> dict[str, tuple[str, str]]:
    """(snippet, what it prints) by id, of each table of a file that has a snippet."""
    tables = [table for kind in tomllib.loads(path.read_text("utf-8")).values() for table in kind]
    return {
        table["id"]: (table["snippet"], table["prints"].strip("\n"))
        for table in tables
        if "snippet" in table
    }


def release(text: str) -> list[int]:
    """2.15.0+cpu → [2, 15, 0]"""
    return [int(number) for number in re.findall(r"\d+", text.partition("+")[0])[:3]]


def with_held(text: str, ids: set[str], torch: str) -> str:
    """The text of claims.toml in which the claims of these ids held on this torch, if newer."""
    tables = re.split(r"^(?=\[\[claim\]\])", text, flags=re.M)
    for number, table in enumerate(tables):
        held, name = (re.search(rf'^{key} = "(.*)"$', table, re.M) for key in ("held", "id"))
        if held and name and name[1] in ids and release(held[1]) < release(torch):
            tables[number] = table[: held.start(1)] + torch + table[held.end(1) :]
    return "".join(tables)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--held", action="store_true", help="write the installed torch into held")
    write, torch, differ = parser.parse_args().held, version("torch").partition("+")[0], 0
    for path in (CLAIMS, SYMPTOMS):
        wanted = recorded(path) if path.exists() else {}
        printed = run_all([snippet for snippet, _ in wanted.values()]) if wanted else []
        held = set()
        for (name, (_, expected)), got in zip(wanted.items(), printed, strict=True):
            if got == expected:
                held.add(name)
            verdict = "holds" if name in held else f"DIFFERS:\n{got}\nrecorded:\n{expected}"
            print(f"{path.stem}, torch {torch}: {name} {verdict}")
        differ += len(wanted) - len(held)
        if write and path == CLAIMS:
            path.write_text(with_held(path.read_text("utf-8"), held, torch), "utf-8")
    sys.exit(differ > 0)


if __name__ == "__main__":
    main()
