"""Binder, as far as it can be tried without Docker: its scripts, its settings, its links."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import binder_link
import nbformat
import pytest
from jsonschema import Draft7Validator
from jupyterlab_server.settings_utils import get_settings
from nbformat.sign import NotebookNotary

ROOT = Path(__file__).resolve().parent.parent
OVERRIDES = json.loads((ROOT / "jupyter" / "overrides.json").read_text("utf-8"))
STAND_IN = "The notebooks use the stand-in weights."
CAPS = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"]


def test_start_becomes_the_server_with_its_arguments_and_one_thread():
    code = "import json, os, sys; print(json.dumps([os.getpid(), sys.argv[1:], dict(os.environ)]))"
    arguments = ["--ip", "a b", "", "$HOME *"]
    command = [str(ROOT / "start"), sys.executable, "-c", code, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    pid, received, env = json.loads(process.communicate(timeout=60)[0])
    assert pid == process.pid, "without exec, Binder's signals stop at the shell"
    assert received == arguments
    assert {name: env.get(name) for name in CAPS} == dict.fromkeys(CAPS, "1")


# ---------------------------------------------------------------- postBuild

OFFLINE = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "no_proxy": ""}
OFFLINE |= dict.fromkeys(["http_proxy", "https_proxy"], "http://127.0.0.1:9")
FILES = ["postBuild", "pyproject.toml", "constraints.txt", "LICENSE", "LICENSE-text"]
FOLDERS = ["helpers", "jupyter", "notebooks"]


def settings(plugin, app_settings, user_settings):
    """The schema of `plugin` as this JupyterLab serves it."""
    share = Path(sys.prefix) / "share" / "jupyter"
    answer, _ = get_settings(
        str(app_settings),
        str(share / "lab" / "schemas"),
        str(user_settings),
        schema_name=plugin,
        labextensions_path=[str(share / "labextensions")],
    )
    return answer["schema"]


def test_postbuild_without_network(tmp_path):
    """On a copy of the repository, in an environment of its own.

    The environment sees the packages that these tests run with, as Binder's has environment.yml's.
    """
    repo, env_folder, home = (tmp_path / name for name in ("repo", "env", "HOME"))
    for folder in (repo, home):
        folder.mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, repo)
    for name in FOLDERS:
        shutil.copytree(
            ROOT / name, repo / name, ignore=shutil.ignore_patterns("__pycache__", ".*")
        )
    venv.create(env_folder, symlinks=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(env_folder)}))
    (site / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    own = {name: str(tmp_path / name) for name in ["HOME", "JUPYTER_DATA_DIR", "MPLCONFIGDIR"]}
    places = [env_folder / "bin", Path(sys.executable).parent, os.environ["PATH"]]
    env = OFFLINE | own | {"PATH": os.pathsep.join(map(str, places))}
    run = subprocess.run(["./postBuild"], cwd=repo, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr

    assert "Traceback" not in run.stdout + run.stderr
    said = run.stdout.splitlines()
    assert "could not be downloaded" in said[said.index(STAND_IN) - 1]
    (installed,) = site.glob("*.dist-info")
    assert installed.name.startswith("normalization_notebooks-")
    origin = json.loads((installed / "direct_url.json").read_text())
    assert origin == {"dir_info": {"editable": True}, "url": repo.as_uri()}
    notary = NotebookNotary(data_dir=own["JUPYTER_DATA_DIR"])
    notebooks = sorted((ROOT / "notebooks").rglob("*.ipynb"))
    assert notebooks
    for path in notebooks:
        assert notary.check_signature(nbformat.read(path, as_version=4)), path.name
    notary.store.close()
    assert list(Path(own["MPLCONFIGDIR"]).glob("fontlist*.json"))
    served = env_folder / "share" / "jupyter" / "lab" / "settings"
    for plugin, overrides in OVERRIDES.items():
        properties = settings(plugin, served, tmp_path)["properties"]
        assert {name: properties[name]["default"] for name in overrides} == overrides


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
        command = [str(ROOT / "postBuild")]
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


@pytest.mark.parametrize(
    "url, place",
    [
        ("git@github.com:ada/two-backbones.git", "gh/ada/two-backbones"),
        ("ssh://git@github.com:22/ada/two-backbones.git", "gh/ada/two-backbones"),
        ("https://GitHub.com/ada/two-backbones.git/", "gh/ada/two-backbones"),
        ("https://ada:secret@github.com/ada/two.backbones.git", "gh/ada/two.backbones"),
        ("https://gitlab.com/group/sub/course.git", "gl/group%2Fsub%2Fcourse"),
        ("git@gitlab.com:group/course.git", "gl/group%2Fcourse"),
    ],
)
def test_the_place_of_a_remote(url, place):
    assert binder_link.place(url) == place


@pytest.mark.parametrize(
    "url, host",
    [
        ("https://ada:secret@codeberg.org/ada/course.git", "codeberg.org"),
        ("git@git.example.org:ada/course.git", "git.example.org"),
        ("https://github.com.example.org/ada/course", "github.com.example.org"),
        ("https://github.com/ada", "github.com"),
        ("https://gitlab.com/course", "gitlab.com"),
        ("file:///srv/git/course.git", "this computer"),
        ("../course", "this computer"),
    ],
)
def test_a_remote_that_binder_cannot_reach(url, host):
    with pytest.raises(ValueError) as error:
        binder_link.place(url)
    sentence = str(error.value)
    assert f"(on {host})" in sentence
    assert "secret" not in sentence and "\n" not in sentence


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
        (tmp_path / "notebooks" / name).write_text("")

    def git(*args):
        who = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *args], check=True, capture_output=True)

    git("init")
    git("add", "notebooks")
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
    answers("01_first", "", "REF is missing (`make binder-link NOTEBOOK=01_two")
    answers("01_first", "v2", "There is no tag v2 here: name one of v1.")
    answers("01_first", "develop", "There is no tag develop here: name one of v1.")
    answers("", "v1", "NOTEBOOK is missing: name one of 01_first, 02 größer, more.")
    answers("03_later", "v1", "v1 has no notebook 03_later: name one of 01_first, 02 größer, more.")
    answers("make", "v1", "v1 has no notebook make: name one of 01_first, 02 größer, more.")

    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "binder_link.py", tmp_path / "tools")
    command = ["make", "binder-link", "NOTEBOOK=01_first", "REF=v2"]
    run = subprocess.run(command, capture_output=True, text=True)
    sentence, *rest = run.stderr.splitlines()
    assert run.returncode and not run.stdout and sentence.startswith("There is no tag v2 here")
    assert all(line.startswith("make") for line in rest)

    git("tag", "-d", "v1")
    answers("01_first", "v1", "There is no tag v1 here: `git tag v1.0.0` makes the first.")
    shutil.rmtree(tmp_path / ".git")
    answers("01_first", "v1", no_remote)
