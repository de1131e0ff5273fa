"""The set-up: one list of packages in four files, and a Makefile that keeps its promises."""

import csv
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
import sound
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
TARGETS = ["lab", "test", "test-all", "notebooks", "bench", "weights", "constraints"]
TARGETS += ["export", "binder-lock", "binder-link", "colab", "real-weights"]
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


def test_make_alone_prints_help():
    run = make()
    assert run.returncode == 0
    for target in TARGETS:
        assert re.search(rf"^make {target} ", run.stdout, re.M)


def test_targets_exist():
    run = make("-n", *TARGETS)
    assert run.returncode == 0, run.stderr


def test_cpu_torch_comes_from_one_index_in_one_call():
    run = make("-n", "lab", "TORCH=cpu")
    calls = [line for line in run.stdout.splitlines() if "--index-url" in line]
    assert len(calls) == 1
    assert "--index-url https://download.pytorch.org/whl/cpu torch torchvision" in calls[0]
    assert "-c constraints.txt" in calls[0]


def test_an_unknown_torch_is_refused():
    run = make("-n", "lab", "TORCH=gpu")
    assert run.returncode != 0 and "TORCH is cpu" in run.stderr


def test_jupyterlab_gets_its_settings_and_its_arguments():
    before, _, after = make("-n", "lab", "ARGS=--port 9000").stdout.partition(
        "jupyter lab --LabApp"
    )
    assert "cp jupyter/overrides.json .venv/share/jupyter/lab/settings\n" in before
    assert after.rstrip().endswith("--port 9000")


def test_an_older_python_is_refused_in_one_sentence(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "sound.py", tmp_path / "tools")
    old = tmp_path / "old-python"
    for version in (None, (3, 10, 13), (2, 7, 18)):
        if version:
            lines = [f"#!{sys.executable}", "import sys"]
            lines += [f"sys.version_info = {version}", "exec(sys.argv[2])"]
            old.write_text("\n".join(lines))
            old.chmod(0o755)
        run = make("lab", f"PYTHON={old}", cwd=tmp_path)
        sentence, *rest = run.stderr.splitlines()
        assert run.returncode and sentence.startswith("Python 3.11 or newer is needed")
        assert str(old) in sentence and all(line.startswith("make") for line in rest)
        assert not (tmp_path / ".venv").exists()


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


# ---------------------------------------------------------------- half-made environments


@pytest.fixture
def site(tmp_path):
    """A site-packages with a whole `pip` and a whole `thing`."""
    site = tmp_path / ".venv" / "site-packages"
    for name in ["pip", "thing"]:
        info = site / f"{name}-1.0.dist-info"
        (site / name).mkdir(parents=True)
        info.mkdir()
        (site / name / "__init__.py").write_text("x = 1\n")
        (info / "INSTALLER").write_text("pip\n")
        rows = [[f"{name}/__init__.py", "", 6], [f"{info.name}/INSTALLER", "", 4]]
        rows += [[f"{info.name}/RECORD", "", ""], [f"{name}/__pycache__/a.pyc", "", ""]]
        with (info / "RECORD").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return site


@pytest.mark.parametrize(
    "harm, why",
    [
        (lambda s: shutil.rmtree(s / "thing"), "thing/__init__.py is missing"),
        (lambda s: (s / "thing" / "__init__.py").write_text("x"), "missing or cut short"),
        (lambda s: (s / "thing-1.0.dist-info" / "RECORD").unlink(), "thing-1.0 was interrupted"),
        (
            lambda s: (s / "thing-1.0.dist-info" / "RECORD").write_text("thing/__init__.py,,6\n"),
            "thing-1.0 was interrupted",
        ),
        (lambda s: (s / "~hing").mkdir(), "left over"),
        (lambda s: shutil.rmtree(s / "pip-1.0.dist-info"), "no pip"),
    ],
)
def test_a_half_installed_package_is_noticed(harm, why, site, tmp_path):
    assert sound.broken_package(site, tmp_path) is None
    harm(site)
    assert why in sound.broken_package(site, tmp_path)


def test_an_environment_of_another_folder_is_noticed(site, tmp_path):
    info = site / "normalization_notebooks-0.1.0.dist-info"
    info.mkdir()
    (info / "INSTALLER").write_text("pip\n")
    (info / "RECORD").write_text(f"{info.name}/INSTALLER,,4\n")
    (info / "direct_url.json").write_text('{"url": "' + (tmp_path / "a b").as_uri() + '"}')
    assert sound.broken_package(site, tmp_path / "a b") is None
    assert sound.broken_package(site, tmp_path) == "it belongs to another folder"


def test_a_python_that_is_not_in_the_environment_is_noticed(tmp_path):
    assert "interrupted" in sound.reason(tmp_path / ".venv")


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
    assert citation["license"] == PROJECT["license"]


def test_the_ci_script_is_executable_and_parses():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(script)], check=True)
