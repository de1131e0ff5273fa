"""Binder and Colab, as far as they can be tried here: lock, scripts, settings, links, cell."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib import metadata
from pathlib import Path

import binder_link
import binder_lock
import colab
import nbformat
import pytest
from jsonschema import Draft7Validator
from jupyterlab_server.settings_utils import get_settings
from nbformat.sign import NotebookNotary

ROOT = Path(__file__).resolve().parent.parent
BINDER = ROOT / ".binder"
OVERRIDES = json.loads((ROOT / "jupyter" / "overrides.json").read_text("utf-8"))
STAND_IN = "The notebooks use the stand-in weights."
CAPS = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"]


@pytest.mark.posix
def test_start_becomes_the_server_with_its_arguments_and_one_thread():
    code = "import json, os, sys; print(json.dumps([os.getpid(), sys.argv[1:], dict(os.environ)]))"
    arguments = ["--ip", "a b", "", "$HOME *"]
    command = [str(BINDER / "start"), sys.executable, "-c", code, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    pid, received, env = json.loads(process.communicate(timeout=60)[0])
    assert pid == process.pid, "without exec, Binder's signals stop at the shell"
    assert received == arguments
    assert {name: env.get(name) for name in CAPS} == dict.fromkeys(CAPS, "1")


@pytest.mark.posix
def test_repo2docker_builds_from_the_folder(monkeypatch):
    """With .binder/ it reads nothing outside; binder/ beside it is an error (its base.py)."""
    assert not (ROOT / "binder").exists()
    files = {"requirements.txt", "runtime.txt", "postBuild", "start"}  # no other build pack's
    assert {file.name for file in BINDER.iterdir()} == files
    assert os.access(BINDER / "postBuild", os.X_OK) and os.access(BINDER / "start", os.X_OK)
    app = pytest.importorskip("repo2docker.app", reason="the rest asks repo2docker").Repo2Docker()
    monkeypatch.chdir(ROOT)
    packs = (pack(base_image=app.base_image) for pack in app.buildpacks)
    first = next(pack for pack in packs if pack.detect())
    assert type(first).__name__ == "PythonBuildPack" and first.binder_dir == ".binder"


# ---------------------------------------------------------------- postBuild

OFFLINE = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "no_proxy": ""}
OFFLINE |= dict.fromkeys(["http_proxy", "https_proxy"], "http://127.0.0.1:9")
FILES = ["pyproject.toml", "LICENSE", "LICENSE-text"]


def copy(*names, to):
    """Copy files and folders of this repository into a new folder."""
    ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for name in names:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, to / name)


@pytest.fixture
def fresh(tmp_path):
    """A new environment that sees the packages of these tests: variables, its site-packages."""
    folder = tmp_path / "env"
    venv.create(folder, symlinks=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    (site / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    own = {name: str(tmp_path / name) for name in ["HOME", "JUPYTER_DATA_DIR", "MPLCONFIGDIR"]}
    (tmp_path / "HOME").mkdir()
    places = [folder / "bin", Path(sys.executable).parent, os.environ["PATH"]]
    return OFFLINE | own | {"PATH": os.pathsep.join(map(str, places))}, site


def settings(plugin, app_settings, user_settings):
    """The schema of `plugin` as this JupyterLab serves it."""
    share = Path(sys.prefix, "share", "jupyter")
    schemas, extensions = str(share / "lab" / "schemas"), [str(share / "labextensions")]
    where = {"schema_name": plugin, "labextensions_path": extensions}
    answer, _ = get_settings(str(app_settings), schemas, str(user_settings), **where)
    return answer["schema"]


@pytest.mark.posix
def test_postbuild_without_network(fresh, tmp_path):
    """On a copy of the repository, in an environment of its own."""
    env, site = fresh
    repo = tmp_path / "repo"
    copy(*FILES, ".binder", "helpers", "jupyter", "notebooks", to=repo)
    run = subprocess.run(["./.binder/postBuild"], cwd=repo, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr

    assert "Traceback" not in run.stdout + run.stderr
    said = run.stdout.splitlines()
    assert "could not be downloaded" in said[said.index(STAND_IN) - 1]
    (installed,) = site.glob("*.dist-info")
    assert installed.name.startswith("normalization_notebooks-")
    origin = json.loads((installed / "direct_url.json").read_text())
    assert origin == {"dir_info": {"editable": True}, "url": repo.as_uri()}
    notary = NotebookNotary(data_dir=env["JUPYTER_DATA_DIR"])
    notebooks = sorted((ROOT / "notebooks").rglob("*.ipynb"))
    assert notebooks
    for path in notebooks:
        assert notary.check_signature(nbformat.read(path, as_version=4)), path.name
    notary.store.close()
    assert list(Path(env["MPLCONFIGDIR"]).glob("fontlist*.json"))
    served = tmp_path / "env" / "share" / "jupyter" / "lab" / "settings"
    for plugin, overrides in OVERRIDES.items():
        properties = settings(plugin, served, tmp_path)["properties"]
        assert {name: properties[name]["default"] for name in overrides} == overrides


@pytest.mark.posix
def test_only_the_weights_may_fail(tmp_path):
    shutil.copytree(ROOT / "jupyter", tmp_path / "jupyter")
    (tmp_path / "bin").mkdir()
    env = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PREFIX": str(tmp_path / "a b")}
    for failing, code in {
        None: 0,
        "-m helpers.networks.backbones": 0,
        "pip install": 1,
        "trust notebooks/": 1,
        "sys.prefix": 1,
        "font_manager": 1,
    }.items():
        stub = f'#!/bin/sh\ncase "$*" in *"{failing}"*) exit 1;; *prefix*) echo "$PREFIX";; esac\n'
        for name in ["python", "jupyter"]:
            (tmp_path / "bin" / name).write_text(stub)
            (tmp_path / "bin" / name).chmod(0o755)
        command = [str(BINDER / "postBuild")]
        run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert run.returncode == code, failing
        assert (STAND_IN in run.stdout) == (failing == "-m helpers.networks.backbones")


# ---------------------------------------------------------------- JupyterLab's settings


def test_the_overrides_are_settings_of_jupyterlab_and_change_something(tmp_path):
    for plugin, overrides in OVERRIDES.items():
        schema = settings(plugin, tmp_path, tmp_path)
        Draft7Validator(schema).validate(overrides)
        for name, value in overrides.items():
            assert schema["properties"][name]["default"] != value


# ---------------------------------------------------------------- make binder-link


def test_the_place_of_a_remote():
    for url, place in {
        "git@github.com:ada/two-backbones.git": "gh/ada/two-backbones",
        "ssh://git@github.com:22/ada/two-backbones.git": "gh/ada/two-backbones",
        "https://GitHub.com/ada/two-backbones.git/": "gh/ada/two-backbones",
        "https://ada:secret@github.com/ada/two.backbones.git": "gh/ada/two.backbones",
        "https://gitlab.com/group/sub/course.git": "gl/group%2Fsub%2Fcourse",
        "git@gitlab.com:group/course.git": "gl/group%2Fcourse",
    }.items():
        assert binder_link.place(url) == place


def test_a_remote_that_binder_cannot_reach():
    for url, host in {
        "https://ada:secret@codeberg.org/ada/course.git": "codeberg.org",
        "git@github.com.example.org:ada/course.git": "github.com.example.org",
        "https://github.com/ada": "github.com",
        "../course": "this computer",
    }.items():
        with pytest.raises(ValueError, match=rf"^[^\n]*\(on {re.escape(host)}\)[^\n]*$") as error:
            binder_link.place(url)
        assert "secret" not in str(error.value)


@pytest.fixture
def git(tmp_path, monkeypatch):
    """Calls git in a repository that is the working folder, with notebooks and the tag v1."""
    for tool in ["git", "make"]:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    for name in [name for name in os.environ if name.startswith(("GIT_", "MAKE", "MFLAGS"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notebooks" / "deeper").mkdir(parents=True)
    for name in ["01_first.ipynb", "02 größer.ipynb", "deeper/more.ipynb", "make.py"]:
        (tmp_path / "notebooks" / name).write_text('{"cells": [{}]}')
    (tmp_path / ".binder").mkdir()
    (tmp_path / "constraints.txt").write_text("torch==2.0\nanywidget==1.0\n")
    (tmp_path / binder_lock.LOCK).write_text(binder_lock.lock("torch==2.0\nanywidget==1.0"))

    def git(*args):
        who = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *args], check=True, capture_output=True)

    git("init")
    git("add", ".")
    git("commit", "-m", "x")
    git("tag", "v1")
    git("branch", "develop")
    return git


def test_the_link(git):
    git("remote", "add", "fork", "https://gitlab.com/g/s/c")
    first = "?urlpath=lab/tree/notebooks/01_first.ipynb"
    mybinder = "https://mybinder.org/v2"
    # The only remote need not be origin.
    assert binder_link.link("01_first", "v1") == f"{mybinder}/gl/g%2Fs%2Fc/v1{first}"
    git("remote", "add", "origin", "git@github.com:ada/c.git")
    assert binder_link.link("01_first", "v1") == f"{mybinder}/gh/ada/c/v1{first}"
    git("tag", "r/1+a")
    larger = "?urlpath=lab/tree/notebooks/02%20gr%C3%B6%C3%9Fer.ipynb"
    assert binder_link.link("02 größer", "r/1+a") == f"{mybinder}/gh/ada/c/r/1%2Ba{larger}"
    deeper = "?urlpath=lab/tree/notebooks/deeper/more.ipynb"
    assert binder_link.link("more", "v1") == f"{mybinder}/gh/ada/c/v1{deeper}"


def test_what_is_missing_is_said_in_one_sentence(git, tmp_path):
    def answers(notebook, tag, sentence):
        with pytest.raises(ValueError) as error:
            binder_link.link(notebook, tag)
        assert str(error.value).startswith(sentence) and str(error.value).count("\n") == 0

    no_remote = "There is no git remote to take owner and repository from: "
    answers("01_first", "v1", no_remote)
    git("remote", "add", "origin", "https://github.com/ada/c")
    (tmp_path / "notebooks" / "03_later.ipynb").write_text("")  # not yet in v1
    answers("01_first", "", "REF is missing (as in REF=v1.0.0): name one of v1.")
    answers("01_first", "v2", "There is no tag v2 here: name one of v1.")
    answers("01_first", "develop", "There is no tag develop here: name one of v1.")
    answers("", "v1", "NOTEBOOK is missing: name one of 01_first, 02 größer, more.")
    answers("03_later", "v1", "v1 has no notebook 03_later: name one of 01_first, 02 größer, more.")
    answers("make", "v1", "v1 has no notebook make: name one of 01_first, 02 größer, more.")

    (tmp_path / "constraints.txt").write_text("torch==2.1\nanywidget==1.0\n")
    for tag, wrong in ("stale", "does not fit its constraints.txt"), ("none", "is missing"):
        git("commit", "-am", tag)
        git("tag", tag)
        answers("01_first", tag, f"{binder_lock.LOCK} of {tag} {wrong}: `make binder-lock`, ")
        (tmp_path / binder_lock.LOCK).unlink(missing_ok=True)

    copy("Makefile", "tools", to=tmp_path)
    command = ["make", "binder-link", "NOTEBOOK=01_first", "REF=v2"]
    run = subprocess.run(command, capture_output=True, text=True)
    sentence, *rest = run.stderr.splitlines()
    assert run.returncode and not run.stdout and sentence.startswith("There is no tag v2 here")
    assert all(line.startswith("make") for line in rest)

    git("tag", "-d", "v1", "stale", "none")
    answers("01_first", "v1", "There is no tag v1 here: `git tag v1.0.0` makes the first.")
    shutil.rmtree(tmp_path / ".git")
    answers("01_first", "v1", no_remote)


# ---------------------------------------------------------------- Colab


@pytest.mark.posix
def test_colabs_first_cell_in_a_fresh_environment(git, fresh, tmp_path):
    env, site = fresh
    pinned = (ROOT / "constraints.txt").read_text("utf-8")
    assert len(re.findall(f"^({'|'.join(colab.LACKING)})==", pinned, re.M)) == len(colab.LACKING)
    copy(*FILES, "helpers", "data/photos", to=tmp_path)
    pins = [f"{name}=={metadata.version(name)}" for name in ("torch", *colab.LACKING)]
    (tmp_path / "constraints.txt").write_text("\n".join(pins))  # nothing to download
    git("add", *FILES, "helpers", "data", "constraints.txt")
    git("commit", "-m", "x")
    git("tag", "v2")
    git("remote", "add", "origin", "git@github.com:ada/c.git")
    assert len(colab.write("v2")) == 3
    first, *rest = json.loads((colab.FOLDER / "deeper" / "more.ipynb").read_text("utf-8"))["cells"]
    code = "".join(first["source"])
    assert rest == [{}] and pins[0] not in code and "--no-deps" in code
    code = code.replace("https://github.com/ada/c.git", tmp_path.as_uri())
    code += "\nimport helpers\nprint(helpers.DATA, helpers.DATA.is_dir())"
    env |= {"PIP_NO_BUILD_ISOLATION": "0"}  # Binder's way: isolation would download setuptools
    for _ in range(2):  # a second run of the cell does no harm
        command = [site.parents[2] / "bin" / "python", "-c", code]
        run = subprocess.run(command, env=env, capture_output=True, text=True)
        assert run.stdout == f"{env['HOME']}/two-backbones/v2/data True\n", run.stderr
    (installed,) = site.glob("*.dist-info")
    assert installed.name.startswith("normalization_notebooks-")
