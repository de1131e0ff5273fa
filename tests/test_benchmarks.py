"""The benchmarks run, count rightly and write JSON lines; how fast things are is not asserted."""

import importlib
import json
import math
import mmap
import subprocess
from pathlib import Path

import nbformat
import pytest

from benchmarks import __main__ as everything
from benchmarks import (
    browser,
    class_server,
    compare,
    explorer,
    memory,
    notebooks,
    pyramid,
    report,
    scaling,
    timing,
)

ROOT = Path(__file__).resolve().parent.parent


PICTURE = """from IPython.display import display
display({"image/png": "AAAA", "text/plain": "a picture"}, raw=True)"""


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


class Clock:
    now = 0

    def __call__(self):
        return self.now


def test_medians_leave_out_what_runs_before():
    clock, order = Clock(), []
    seconds = {"a": iter([1, 2, 30]), "b": iter([5, 4, 3])}

    def call(name):
        order.append(name)
        clock.now += next(seconds[name])

    def before():
        order.append("before")
        clock.now += 1000

    calls = {name: lambda name=name: call(name) for name in seconds}
    assert timing.medians(calls, 3, before, clock) == {"a": 2, "b": 4}
    assert order[::2] == ["before"] * 6
    assert order[1::2] == list("abbaab")


def test_a_result_is_one_line_and_above_its_limit_said_on_stderr(capsys):
    report.emit("thing", 1.23456, "ms", 2)
    assert lines(capsys) == [{"name": "thing", "value": 1.235, "unit": "ms", "limit": 2}]
    report.emit("thing", 3, "ms", 2)
    assert capsys.readouterr().err == "thing: 3.0 ms is above the limit of 2\n"


@pytest.mark.parametrize(("ci", "status"), [("true", 1), ("", 0)])
def test_without_chromium_a_line_says_so_and_ci_fails(ci, status, monkeypatch, capsys):
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(browser, "CHROMIUM", None)
    monkeypatch.setattr(explorer, "settle", lambda: None)
    monkeypatch.setattr(explorer, "LIVE", explorer.LIVE[:1])
    for name in ("rss_growth_mb", "burst_seconds", "toggle_over_forward", "cached_toggle_ms"):
        monkeypatch.setattr(explorer, name, lambda *_, **__: 1.0)
    assert explorer.main() == status
    *measured, skipped = lines(capsys)
    assert [line["value"] for line in measured] == [1.0] * 4
    assert skipped["name"] == "click_to_paint_ms" and skipped["value"] is None
    assert skipped["skipped"] == "Chromium is not installed."


@pytest.mark.sweep
def test_the_numbers_are_numbers(monkeypatch):
    monkeypatch.setattr(explorer, "STAGES", ("layer4",))
    numbers = [
        explorer.rss_growth_mb(explorer.ScalingExplorer, events=1),
        explorer.burst_seconds(explorer.ScalingExplorer),
        *compare.over_two_forwards(rounds=1).values(),
        explorer.cached_toggle_ms(rounds=1),
    ]
    for module in (scaling, pyramid):
        for measure in (module.view_over_forward, module.handler_ms):
            numbers.append(measure(rounds=1))
    assert all(map(math.isfinite, numbers))


def test_peak_stays_and_rss_falls():
    block = mmap.mmap(-1, 200 * 2**20)  # malloc may serve it from what it has, and keep it
    for _ in range(200):
        block.write(bytes([1]) * 2**20)
    high = memory.rss_mb()
    assert memory.peak_mb() >= high - 1
    block.close()
    assert memory.rss_mb() < high - 150
    assert memory.peak_mb() >= high - 1


def notebook(*sources):
    return nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, sources)))


def test_a_notebook_is_timed_to_its_pictures():
    nb = notebook("1 + 1", PICTURE, "import time\ntime.sleep(0.2)")
    ended = []
    numbers = notebooks.measure(nb, 10.0, lambda: ended.append(1))
    assert numbers.keys() == notebooks.LIMITS.keys() and len(ended) == 4
    assert 0 < numbers["seconds_to_first_png"] <= numbers["seconds"] - 0.2
    assert numbers["seconds_to_first_picture"] == numbers["seconds_to_first_png"]
    assert 10 < numbers["peak_mb_above_imports"] < 200
    assert [cell.source for cell in nb.cells][1] == PICTURE and len(nb.cells) == 3


def test_a_widget_is_a_picture_but_no_png():
    cell = notebook("").cells[0]
    data = {notebooks.make.WIDGET_VIEW: {}, "text/plain": "a widget"}
    cell.outputs = [nbformat.v4.new_output("display_data", data)]
    assert notebooks.shows(cell, notebooks.PNG, notebooks.make.WIDGET_VIEW)
    assert not notebooks.shows(cell, notebooks.PNG)


def test_a_notebook_without_pictures_has_no_time_to_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(notebooks, "settle", lambda: None)
    monkeypatch.setattr(notebooks, "imports_mb", lambda: 0.0)
    monkeypatch.setattr(notebooks, "measure", lambda *_: dict.fromkeys(notebooks.LIMITS))
    nbformat.write(notebook("1 + 1"), tmp_path / "plain.ipynb")
    notebooks.main([tmp_path / "plain.ipynb"])
    assert not lines(capsys)


def test_all_run_each_in_a_process_and_one_failure_fails_all(monkeypatch):
    asked = []

    def run(command):
        asked.append(command[2])
        return subprocess.CompletedProcess(command, int("compare" in command[2]))

    monkeypatch.setattr(everything.subprocess, "run", run)
    assert everything.main() == 1
    assert asked == [f"benchmarks.{name}" for name in everything.NAMES]
    assert all(importlib.import_module(name).main for name in asked)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="Linux tells it only")
def test_kernels_stay_open_with_the_settings_until_all_are_measured():
    block = "import os\nblock = bytes([int(os.environ['A'])]) * 2**27"
    rows = class_server.measure([block, PICTURE], 2, 2, {"A": "1"})
    assert len({row["pid"] for row in rows}) == 2
    for row in rows:
        assert 128 < row["Pss"] <= row["Rss"] < 500
        assert 0 < row["seconds_to_first_png"] <= row["seconds"]
        assert not Path(f"/proc/{row['pid']}").exists()
    with pytest.raises(RuntimeError, match="fails in this kernel: name 'x'"):
        class_server.measure(["x"], 1, 1, {})


def test_the_administrators_page_has_the_settings_that_are_measured():
    page = (ROOT / "docs" / "jupyterhub.md").read_text("utf-8")
    assert all(f'"{name}": "{value}"' in page for name, value in class_server.SETTINGS.items())
