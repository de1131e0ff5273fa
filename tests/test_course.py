"""tools/course.py and tools/check.py: what an interruption left is mended, what broke is named."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import check
import course
import pytest
import sound
import torchvision
from nbformat.sign import NotebookNotary

from helpers.networks import detector

ROOT = Path(__file__).resolve().parent.parent
INIT, INFO, RECORD = "thing/__init__.py", "thing-1.0.dist-info", "thing-1.0.dist-info/RECORD"


@pytest.fixture
def venv(tmp_path, monkeypatch):
    """An environment with a whole `pip`, `thing` and project; only its Python is missing."""
    venv = tmp_path / "a b" / ".venv"
    site = venv / "site"
    for name in ("pip", "thing", sound.PROJECT):
        (info := site / f"{name}-1.0.dist-info").mkdir(parents=True)
        (site / name).mkdir()
        (site / name / "__init__.py").write_text("x = 1\n")
        lines = [f"{name}/__init__.py,,6", f"{name}/__pycache__/a,,9", f"{info.name}/INSTALLER,,0"]
        (info / "RECORD").write_text("\n".join(lines))
        (info / "INSTALLER").touch()
    (info / "direct_url.json").write_text(f'{{"url": "{venv.parent.as_uri()}"}}')
    for folder in ("bin", "Scripts"):
        (venv / folder).mkdir()
        (venv / folder / "activate").touch()
    monkeypatch.setattr(sound, "about", lambda _: [[3, 11], str(venv), str(site)])
    return venv


@pytest.mark.parametrize(
    "file, text, gone, why",
    [
        (INIT, "x", INFO, "missing or cut short"),
        (RECORD, f"{INIT},,6\n", INFO, "was interrupted"),
        ("~hing", "x", "~hing", "left over"),
    ],
)
def test_what_an_interrupted_install_left_is_mended(
    file, text, gone, why, venv, monkeypatch, capsys
):
    monkeypatch.setattr(course, "VENV", venv)
    (venv / "lab.ok").touch()
    course.Course([], {}).environment()
    assert (venv / "lab.ok").exists() and capsys.readouterr().out == ""
    (venv / "site" / file).write_text(text)
    course.Course([], {}).environment()
    assert not (venv / "site" / gone).exists() and not (venv / "lab.ok").exists()
    assert why in capsys.readouterr().out


def test_what_cannot_be_mended_is_made_anew(venv, monkeypatch):
    def why(torch="auto", asked=None):
        return sound.state(venv, venv / "bin" / "python", torch, asked)[0]

    assert why() is None and why("pypi", [3, 11]) is None
    assert "Python 3.11" in why(asked=[3, 12]) and "TORCH=cpu" in why("cpu")
    (venv / "torch").write_text("cpu\n")
    assert why("cpu") is None and "TORCH=pypi" in why("pypi")
    (venv / "site/pip/__init__.py").unlink()
    assert "no pip" in why()
    url = venv / "site" / f"{sound.PROJECT}-1.0.dist-info" / "direct_url.json"
    url.write_text(f'{{"url": "{ROOT.as_uri()}"}}')
    assert "another folder" in why()
    for version, prefix, said in ([3, 9], venv, "older than 3.11"), ([3, 11], ROOT, "interrupted"):
        monkeypatch.setattr(sound, "about", lambda _, v=version, p=prefix: [v, str(p), ""])
        assert said in why()


def test_auto_takes_the_cpu_wheels_on_linux_where_their_index_answers(monkeypatch):
    for system, there, torch in (("linux", 1, "cpu"), ("linux", 0, "pypi"), ("darwin", 1, "pypi")):
        monkeypatch.setattr(course, "answers", lambda _, there=there: bool(there))
        monkeypatch.setattr(sys, "platform", system)
        assert course.decided("auto") == torch and course.decided("cpu") == "cpu"


def test_every_refusal_is_one_sentence(tmp_path, monkeypatch):
    for name in ("course", "sound"):  # an old Python can read them, and so says what is needed
        ast.parse((ROOT / "tools" / f"{name}.py").read_text("utf-8"), feature_version=(3, 7))
    assert "3.11 or newer is needed, and python is 3.8" in sound.too_old((3, 8), "python")
    monkeypatch.setattr(course, "VENV", tmp_path)
    monkeypatch.setattr(course.Course, "environment", lambda _: None)
    monkeypatch.setattr(shutil, "which", lambda name, path=None: sys.executable)
    monkeypatch.setattr(subprocess, "call", lambda *_, **__: 3)
    cases = {"lab": "lab` completes it", "lab TORCH=gpu": "not gpu", "lob": "no command lob"}
    for command, said in cases.items():
        with pytest.raises(SystemExit, match=said):
            course.main(command.split(), {"TORCH": "cpu", "ARGS": "--port 9"})
    assert not list(tmp_path.glob("*.ok"))


def test_an_interrupted_test_leaves_lab_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(course, "VENV", tmp_path)
    monkeypatch.setattr(course.Course, "environment", lambda _: None)
    monkeypatch.setattr(course.Course, "run", lambda *_, **__: None)
    course.Course([], {}).packages("lab")
    monkeypatch.setattr(course.Course, "run", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        course.Course([], {}).packages("test")
    assert [file.name for file in tmp_path.glob("*.ok")] == ["lab.ok"]


def test_lab_puts_jupyters_files_in_place_and_passes_its_words_on(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(course.Course, "run", lambda _, *words, **__: ran.append(words))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    course.main(["lab", "--here"], {"ARGS": "--port 9000"})
    monkeypatch.setattr(check, "PREFIX", tmp_path)
    assert check.config_files() and "notebooks/00_start_here.ipynb" in ran[-2]
    assert ran[-1][0] == "jupyter-lab" and ran[-1][-2:] == ("--port", "9000")


def nothing(*_, **__):
    raise RuntimeError("no kernel")


def altered(monkeypatch, place):
    (place / "sums").write_text(check.MANIFEST.read_text("utf-8").replace("5e355", "00000"))
    monkeypatch.setattr(check, "MANIFEST", place / "sums")


VERSION, SIGNATURE = (check, "installed"), (NotebookNotary, "check_signature")
BREAKAGES = [  # the check, what breaks it, what is said
    ("Python", lambda m, _: m.setattr(sys, "version_info", (3, 10, 1)), "older than 3.11"),
    ("versions", lambda m, _: m.setattr(*VERSION, lambda _: "0.1"), "torch is 0.1, .* installs"),
    ("versions", lambda m, _: m.setattr(*VERSION, lambda _: None), "torch is missing: .* installs"),
    ("torch and torchvision", lambda m, _: m.setattr(torchvision.ops, "nms", nothing), "no kernel"),
    ("disk", lambda m, _: m.setattr(check, "DISK", 1e18), "free, and .* needed: delete"),
    ("memory", lambda m, _: m.setattr(check, "available", lambda: 5e8), "0.5 GB .*: close"),
    ("widgets", lambda m, _: m.setattr(check, "LAB", "nowhere"), "no extension of .*: `.* pip"),
    ("trust", lambda m, _: m.setattr(*SIGNATURE, lambda *_: False), "00_start_here.* lab"),
    ("config files", lambda _, place: shutil.rmtree(place / "etc"), "jupyter_server_config.* lab"),
    ("data files", altered, "cat.jpg is missing or altered: `git"),
    ("forward pass", lambda m, _: m.setattr(detector, "load_detector", detector.detector), "mode"),
]


@pytest.mark.parametrize("name, harm, said", BREAKAGES)
def test_a_breakage_is_named_with_its_mend(name, harm, said, tmp_path, monkeypatch, capsys):
    for folder in check.CONFIG.values():
        shutil.copytree(ROOT / "jupyter", tmp_path / folder)
    monkeypatch.setattr(check, "LAB", Path(sys.prefix, check.LAB))
    monkeypatch.setattr(check, "PREFIX", tmp_path)
    monkeypatch.setattr(check, "available", lambda: 2e9)
    monkeypatch.setattr(*SIGNATURE, lambda *_: True)
    monkeypatch.setattr(check, "CHECKS", {name: check.CHECKS[name]})
    assert check.main() == 0, capsys.readouterr().out
    with monkeypatch.context() as broken:
        harm(broken, tmp_path)
        assert check.main() == 1
    right, wrong = capsys.readouterr().out.splitlines()
    assert right.startswith(f"OK   {name}: ") and wrong.startswith(f"FAIL {name}: ")
    assert re.search(said, wrong), wrong


def test_the_manifest_is_that_of_the_data():
    assert check.MANIFEST.read_text("utf-8") == check.manifest()
