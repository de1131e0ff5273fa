"""The set-up: one list of packages in four files, and a Makefile that keeps its promises."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import binder_lock
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
TARGETS = ["lab", "test", "test-all", "check", "packages", "notebooks", "bench", "speed", "weights"]
TARGETS += [
    "constraints",
    "export",
    "site",
    "workshop",
    "binder-lock",
    "binder-link",
    "colab",
    "real-weights",
]
CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib"}


def requirements(lines):
    return {canonicalize_name(r.name): r.specifier for r in map(Requirement, lines)}


def constraints():
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def make(*args, cwd=ROOT):
    """Run make as from a fresh shell, also when make itself started these tests."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    ours = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "PYTHON", "TORCH", "ARGS"}
    env = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(
        ["make", *args], cwd=cwd, env=env, capture_output=True, text=True, timeout=60
    )


# ---------------------------------------------------------------- packages and bounds


def test_conda_and_pip_ask_for_the_same_packages():
    entries = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))["dependencies"]
    pip_lines = next(entry["pip"] for entry in entries if isinstance(entry, dict))
    conda = requirements(line for line in pip_lines if not line.startswith("-"))
    python = None
    for entry in entries:
        if isinstance(entry, dict) or entry == "pip":
            continue
        name, bounds, *build = entry.split()
        if name == "python":
            python = bounds
        else:
            conda[CONDA_NAMES.get(name, name)] = SpecifierSet(bounds)
            assert build == (["cpu*"] if "torch" in name else []), entry
    extras = PROJECT["optional-dependencies"]
    assert conda == requirements(PROJECT["dependencies"] + extras["course"])
    assert re.fullmatch(r"=3\.\d+", python)
    assert Version(python[1:]) in SpecifierSet(PROJECT["requires-python"])


def test_every_pin_is_one_exact_version_for_every_platform():
    for line in constraints():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), line
        assert not re.match(r"(nvidia|cuda|triton|pip==)", line), line


def test_the_pins_lie_within_the_bounds():
    pins = {canonicalize_name(r.name): r.specifier for r in map(Requirement, constraints())}
    extras = PROJECT["optional-dependencies"]
    asked = PROJECT["dependencies"] + extras["course"] + extras["test"]
    for name, bounds in requirements(asked).items():
        (pin,) = pins[name]
        assert Version(pin.version) in bounds, f"{name} {pin} is outside {bounds}"


def test_binder_installs_what_constraints_txt_has():
    text = (ROOT / "constraints.txt").read_text("utf-8")
    assert (ROOT / binder_lock.LOCK).read_text("utf-8") == binder_lock.lock(text)
    (python,) = re.findall(r"CPython (3\.\d+)", text)
    assert (ROOT / ".binder" / "runtime.txt").read_text() == f"python-{python}\n"
    assert binder_lock.pins("--a\ntorch==2\nruff==1\ntqdm==3") == ["torch==2+cpu", "tqdm==3"]


def test_binder_lacks_nothing_that_the_course_needs():
    wanted = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["course"]
    needed = set()
    for one in map(Requirement, wanted):  # which grows
        name = canonicalize_name(one.name)
        if name not in needed and (not one.marker or one.marker.evaluate({"extra": ""})):
            needed.add(name)
            wanted += metadata.requires(name) or ()
    assert "jinja2" in needed and not needed & set(map(canonicalize_name, binder_lock.TESTS))


# ---------------------------------------------------------------- the Makefile


def test_make_alone_names_every_target():
    run = make()
    for target in TARGETS:
        assert re.search(rf"^make {target} ", run.stdout, re.M)
    assert make("-n", *TARGETS).returncode == 0


def test_make_hands_its_variables_on():
    run = make("export", "TORCH=gpu", f"PYTHON={sys.executable}")
    assert run.returncode and "TORCH is auto" in run.stderr


def test_the_readme_names_commands_that_exist():
    text = (ROOT / "README.md").read_text("utf-8")
    assert "make lab" in text and "make test" in text
    named = set(re.findall(r"(?:^|`|\s)make ([a-z][a-z-]*)(?=[`\s])", code(text), re.M))
    assert named <= set(TARGETS), named - set(TARGETS)


def code(markdown):
    """Only the fenced and the inline code of a Markdown text."""
    fenced = re.findall(r"^```.*?\n(.*?)^```", markdown, re.M | re.S)
    inline = re.findall(r"`[^`\n]+`", re.sub(r"^```.*?^```", "", markdown, flags=re.M | re.S))
    return "\n".join(fenced + inline)


# ---------------------------------------------------------------- the other files


def test_licenses_and_citation():
    assert (ROOT / "LICENSE").read_text("utf-8").startswith("BSD 3-Clause License")
    text = (ROOT / "LICENSE-text").read_text("utf-8")
    assert "https://creativecommons.org/licenses/by/4.0/" in text
    for section in range(1, 9):
        assert f"Section {section} " in text
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["version"] == PROJECT["version"]
    assert f"\n## {PROJECT['version']}\n" in (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert citation["license"] == PROJECT["license"]


@pytest.mark.posix
def test_the_ci_script_is_executable_and_parses():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(script)], check=True)
