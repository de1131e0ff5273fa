"""A good notebook keeps every rule, each rule finds its offender, and make.py does what it says."""

import json
import shutil
import signal
import subprocess
import sys
import time
from copy import deepcopy

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from notebook_rules import CONCEPT_CELL, MOST_PRINTED_LINES, ROOT, RULES, make

DESCRIPTION = "A line that rises from 1 to 3.5 over three steps."
TEXT = "Which one is right? One, two."
OPENING = """# Compare two lines
*In one sentence*: They differ.

*You will be able to*: compare.
*You need*: nothing.
*Time*: 7 minutes. CPU only. Deterministic. No download."""
SEE = """<a id="see"></a>
## See
*2 minutes*

See [below](#What-this-does-not-show)."""
CLOSING = """<a id="limits"></a>
## What this does not show
1 minute

Anything else.

<a id="monday"></a>
## On Monday
1 minute

<a id="sources"></a>
## Background and sources
1 minute"""
EXERCISE = """<a id="add"></a>
### Add: two numbers
Difficulty 1 of 3, 2 minutes.

<details><summary>Hint</summary>

Start at one.

</details>
<details><summary>Solution</summary>

```python
answer = 1 + 1  # not [a](link)
```

</details>"""


def result(**data):
    return new_output("execute_result", {k.replace("_", "/", 1): v for k, v in data.items()})


def model(name, **state):
    controls = {"model_module": "@jupyter-widgets/controls", "model_module_version": "2.0.0"}
    return controls | {"model_name": name, "state": state}


def widget_state():
    """Radio buttons, linked in the page to a stack of two answers; and a leftover."""
    models = {
        "a1": model("VBoxModel", children=["IPY_MODEL_a3", "IPY_MODEL_a2"]),
        "a2": model("StackModel", children=["IPY_MODEL_a4"], layout="IPY_MODEL_a5"),
        "a3": model("RadioButtonsModel", index=None),
        "a4": model("HTMLModel", value="right"),
        "a5": model("LayoutModel", width="8px", height=None),
        "a6": model("LinkModel", source=["IPY_MODEL_a3", "index"], target=["IPY_MODEL_a2", "i"]),
        "a7": model("LinkModel", source=["IPY_MODEL_a3", "index"], target=["IPY_MODEL_a8", "i"]),
        "a8": model("HTMLModel", value="a leftover"),
    }
    return {make.WIDGET_STATE: {"state": models, "version_major": 2, "version_minor": 0}}


def raw():
    """A small notebook with one of everything, as a kernel leaves it."""
    view = {"model_id": "a1", "version_major": 2, "version_minor": 0}
    box = new_output("execute_result", {make.WIDGET_VIEW: view, "text/plain": TEXT})
    printed = [new_output("stream", name="stdout", text=text) for text in ("not ", "yet\n")]
    cells = [
        new_markdown_cell(OPENING),
        new_markdown_cell(SEE),
        new_code_cell("show(figure)  ", outputs=[result(image_png="AAAA", text_plain=DESCRIPTION)]),
        new_markdown_cell("It rises. [Source](https://pytorch.org/docs/)"),
        new_code_cell("box", outputs=[box]),
        new_markdown_cell('<a id="try"></a>\n## 2. Exercises\n2 minutes\n\n' + EXERCISE),
        new_code_cell('answer = None\ncheck("add", answer)', outputs=printed),
        new_markdown_cell(CLOSING),
    ]
    for number, cell in enumerate(cells):
        cell.id = f"part-{number}"
    return nbformat.from_dict(new_notebook(cells=cells, metadata={"widgets": widget_state()}))


@pytest.fixture
def good():
    return make.normalize(raw())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "01_good.ipynb"


def source(number, old, new=""):
    """The offence of other text in a cell."""

    def offend(nb):
        assert old in nb.cells[number].source
        nb.cells[number].source = nb.cells[number].source.replace(old, new)

    return offend


def code(text):
    """The offence of this code."""
    return lambda nb: nb.cells[6].update(source=text)


def shows(output):
    """The offence of this output."""
    return lambda nb: nb.cells[6].update(outputs=[output])


def prints(text):
    return shows(new_output("stream", name="stdout", text=text))


def models(nb):
    return list(make.widget_models(nb).values())


STALE = {"_anywidget_id": "explorer", "_esm": "old", "spec": {"modules": ["norm.js"]}}
OFFENDERS = [
    ("normal", source(7, "else.", "else.  "), "limits"),
    ("fresh", lambda nb: models(nb)[3]["state"].update(STALE), "run notebooks/make.py"),
    ("faultless", shows(new_output("stream", name="stderr", text="hm")), "stderr"),
    ("faultless", shows(new_output("error")), "raises"),
    ("faultless", prints("<object object at 0x7f1afb46f250>"), "0x7f1afb46f250"),
    ("machine_free", prints("in /home/me/x.py"), "/home/me"),
    ("machine_free", code(f'open("{ROOT}")'), "open"),
    ("machine_free", lambda nb: models(nb)[3]["state"].update(v="at /tmp/x"), "/tmp/x"),
    ("budgets", source(7, "Anything", "Any" * 210_000), "bytes"),
    ("budgets", lambda nb: nb.update(cells=nb.cells * 4), "32 cells; at most 28"),
    ("budgets", lambda nb: nb.cells[3].update(source="so " * 1001), "words of prose"),
    ("budgets", code("x = 1\n" * (CONCEPT_CELL + 1)), "lines in the longest cell"),
    ("collapsed", lambda nb: nb.cells[2].update(source="predict('a')"), "tag it collapsed"),
    ("collapsed", lambda nb: nb.cells[2].metadata.update(tags=["collapsed"]), "fold it in"),
    ("labelled", source(1, '<a id="see"></a>'), "'## See' has no label"),
    ("labelled", source(1, '"see"', '"try"'), "stands twice"),
    ("labelled", lambda nb: nb.cells[0].update(id="cell-01"), "says nothing"),
    ("printed", prints("x\n" * (MOST_PRINTED_LINES + 1)), "lines; at most"),
    ("printed", shows(result(text_plain="tensor([1., 2.])")), "raw tensor"),
    ("described", shows(result(image_png="AAAA")), "not described"),
    ("headed", source(5, "### Add", "#### Add"), "from level 2 to 4"),
    ("sections", source(0, " No download."), "CPU only"),
    ("sections", source(7, "On Monday", "Later"), "On Monday"),
    ("timed", source(1, "*2 minutes*"), "'See'"),
    ("timed", source(1, "2 min", "3 min"), "add up to 8"),
    ("links", source(3, "https://pytorch.org/docs/", "02_nowhere.ipynb"), "leads nowhere"),
    ("links", source(3, "https:", "http:"), "well-formed"),
    ("links", source(3, "docs/", "docs /"), "malformed"),
    ("links", source(1, "#What-this", "#what-this"), "names no heading"),
    ("links", source(1, "(#What", "(there.md#What"), "names no heading"),
    ("widgets", lambda nb: nb.cells[4].outputs[0].data.pop("text/plain"), "no sentence"),
    ("widgets", lambda nb: nb.metadata.pop("widgets"), "not stored"),
    ("widgets", lambda nb: make.widget_models(nb).pop(f"{2:032x}"), "VBoxModel refers to"),
    ("compared", lambda nb: nb.cells[2].metadata.update(tags=["nbval-skip"]), "nbval-skip"),
    ("compared", code("# NBVAL_SKIP\nx = 1"), "NBVAL_SKIP"),
    ("plain_python", code("%matplotlib inline"), "plain Python"),
    ("plain_python", code("from tqdm.auto import trange"), "tqdm"),
    ("details", source(5, "<summary>Hint</summary>"), "match up"),
    ("exercises", source(5, "Difficulty 1 of 3, "), "difficulty"),
    ("exercises", source(5, ", 2 minutes"), "minutes"),
    ("exercises", source(5, "Exercises", "Try"), "1 checks stand below no heading"),
    ("exercises", code("answer = None"), "checked 0 times"),
    ("hints", source(5, "<summary>Hint", "<summary>Solution"), "no hint"),
    ("hints", source(5, "<summary>Solution", "<summary>Answer"), "no solution"),
    ("hints", source(5, "```python", "```"), "no solution"),
    ("hints", source(5, "<details><summary>Sol", "<summary>Sol"), "no solution"),
    ("questions", code('predict("lines")\nx = 1'), "predict is not the last line"),
]


def test_good_notebook_keeps_every_rule(good, path):
    assert [offence for rule in RULES.values() for offence in rule(good, path)] == []


def test_every_rule_finds_its_offenders(good, path):
    (path.parent / "there.md").write_text("# Something else")
    for rule, offend, sentence in OFFENDERS:
        offend(bad := deepcopy(good))
        assert sentence in "\n".join(RULES[rule](bad, path)), (rule, sentence)
    assert {rule for rule, _, _ in OFFENDERS} == RULES.keys()


def test_links_elsewhere(good, path):
    """Anchors: a notebook's as JupyterLab makes them, a page's as GitHub does."""
    (path.parent / "there.ipynb").write_text(make.dumps(good))
    (path.parent / "there.md").write_text("# Who says `so`?")
    good.cells[3].source = "[a](there.ipynb#Add:-two-numbers) [b](there.md#who-says-so) `x[0](1)`"
    assert list(RULES["links"](good, path)) == []


def test_normalize_is_idempotent_and_leaves_its_argument_alone(good):
    assert make.dumps(make.normalize(make.loads(make.dumps(good)))) == make.dumps(good)
    nb = raw()
    before = deepcopy(nb)
    make.normalize(nb)
    assert nb == before


def test_normalize_cells(good):
    assert good.cells[2].source == "show(figure)"
    assert [out.text for out in good.cells[6].outputs] == ["not yet\n"]
    good.cells[2].metadata = {"tags": [make.COLLAPSED], "trusted": True}
    hidden = {"outputs_hidden": True}
    assert make.normalize(good).cells[2].metadata.jupyter == hidden
    good.cells[2].source = "assert answer == 3"
    assert make.normalize(good).cells[2].metadata.jupyter == hidden | {"source_hidden": True}
    good.cells[2] |= {"metadata": {}, "source": 'check("01-answer", 3)'}
    assert make.normalize(good).cells[2].metadata.jupyter == hidden
    assert [cell.execution_count for cell in good.cells if cell.cell_type == "code"] == [1, 2, 3]


def test_normalize_widgets(good):
    """Numbered as they appear; the layout without its nulls; the leftover and its link gone."""
    assert [m["model_name"].removesuffix("Model") for m in models(good)] == [
        *("VBox", "RadioButtons", "Stack", "HTML", "Layout", "Link"),
    ]
    box, _, stack, _, layout, link = models(good)
    assert good.cells[4].outputs[0].data[make.WIDGET_VIEW]["model_id"] == f"{1:032x}"
    assert box["state"]["children"] == [f"IPY_MODEL_{2:032x}", f"IPY_MODEL_{3:032x}"]
    assert stack["state"]["layout"] == f"IPY_MODEL_{5:032x}"
    assert layout["state"] == {"width": "8px"}
    assert link["state"]["source"] == [f"IPY_MODEL_{2:032x}", "index"]
    assert link["state"]["target"] == [f"IPY_MODEL_{3:032x}", "i"]


LIVE = """import ipywidgets as W
from IPython.display import display

radio, stack = W.RadioButtons(options=["a", "b"]), W.Stack([W.HTML("A"), W.Image(value=b"B")])
leftover, link = W.IntSlider(), W.jslink((radio, "index"), (stack, "selected_index"))
print(1)
display(W.VBox([radio, stack]))
2"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(make, "NOTEBOOKS", tmp_path)

    def put(name, *cells):
        nb = new_notebook(cells=[new_code_cell(cell, id=f"c{i}") for i, cell in enumerate(cells)])
        (tmp_path / f"{name}.ipynb").write_text(make.dumps(nb))

    put.path = tmp_path
    return put


def test_make_twice_is_made_once(folder, capsys):
    folder("live", LIVE)
    assert make.main(["live.ipynb"]) == 0
    file = folder.path / "live.ipynb"
    first = file.read_bytes()
    assert list(RULES["normal"](make.loads(first.decode()), file)) == []
    assert b"IntSlider" in first and b"SliderModel" not in first and b"LinkModel" in first
    assert make.main([]) == 0
    assert "1 up to date already" in capsys.readouterr().out
    assert make.main(["--force"]) == 0
    assert file.read_bytes() == first
    assert {p.name for p in folder.path.iterdir()} == {"live.ipynb", make.STATE}


def test_modules_of_the_page_are_refreshed_without_executing(folder, capsys, monkeypatch):
    folder("live", LIVE)
    assert make.main([]) == 0
    file = folder.path / "live.ipynb"
    nb = make.loads(file.read_text("utf-8"))
    models(nb)[0]["state"].update(STALE)
    file.write_text(make.dumps(nb), encoding="utf-8")
    state = folder.path / make.STATE
    state.write_text(json.dumps({"live.ipynb": make.fingerprint(file, make.dumps(nb))}))
    monkeypatch.setattr(make, "execute", None)
    assert make.main([]) == 0 and "1 up to date already" in capsys.readouterr().out.split("\n")[-2]
    module = (make.PAGE / "explorer.js").read_text("utf-8")
    assert models(make.loads(file.read_text("utf-8")))[0]["state"]["_esm"] == module


def test_check_writes_nothing(folder, capsys):
    folder("live", "1 + 1")
    before = (folder.path / "live.ipynb").read_bytes()
    assert make.main(["--check"]) == 1
    assert "live.ipynb would change: Cell '1 + 1'" in capsys.readouterr().out
    assert (folder.path / "live.ipynb").read_bytes() == before
    assert not (folder.path / make.STATE).exists()


def test_fault_leaves_the_file(folder):
    for cell, message in (
        ("1 / 0", "ZeroDivisionError"),
        ("object()", "address"),
        ("import os; os._exit(3)", "ended the kernel"),
    ):
        folder("bad", "x = 1", cell)
        before = (folder.path / "bad.ipynb").read_bytes()
        with pytest.raises(SystemExit) as stop:
            make.main([])
        for words in ("bad.ipynb is left as it was.", message, cell):
            assert words in str(stop.value)
        assert (folder.path / "bad.ipynb").read_bytes() == before


@pytest.mark.posix
def test_interrupted_goes_on_where_it_was(folder):
    """Ctrl-C in the second notebook keeps the first, and leaves the second as it was."""
    folder("a", "1 + 1")
    folder("b", "import time\ntime.sleep(60)")
    before = (folder.path / "b.ipynb").read_bytes()
    script = shutil.copy(make.__file__, folder.path)
    process = subprocess.Popen(
        [sys.executable, script],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored behind an "&"
    )
    deadline = time.monotonic() + 60
    while not (folder.path / make.STATE).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[1].startswith("Stopped.")
    assert process.returncode == 130
    assert (folder.path / "b.ipynb").read_bytes() == before
    assert json.loads((folder.path / make.STATE).read_text()).keys() == {"a.ipynb"}
