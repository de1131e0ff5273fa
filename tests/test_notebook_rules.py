"""A good notebook keeps every rule, each rule finds its offender, and make.py does what it says."""

import base64
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from copy import deepcopy
from types import ModuleType, SimpleNamespace

import nbformat
import notebook_rules
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from notebook_rules import RULES, make
from PIL import Image

DESCRIPTION = "A line that rises from 1 to 3.5 over three steps."
QUESTION = "Which one is right? One, two."
OPENING = """# Compare two lines
You will compare them.

*What you will learn*: to compare.
*What you need*: nothing.
*Time*: 5 minutes. CPU only. Deterministic. No download."""
EXERCISE = """### Add: two numbers
Difficulty 1 of 3, 2 minutes.

<details><summary>Hint</summary>

Start at one.

</details>
<details><summary>Solution</summary>

```python
answer = 1 + 1  # not [a](link)
```

</details>"""


def png(mode="P", width=8):
    file = io.BytesIO()
    Image.new(mode, (width, 8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def display(**data):
    return new_output("display_data", {k.replace("_", "/", 1): v for k, v in data.items()})


def model(name, **state):
    return {
        "model_module": "@jupyter-widgets/controls",
        "model_module_version": "2.0.0",
        "model_name": name,
        "state": state,
    }


def widget_state():
    """A question: radio buttons, linked in the page to a stack of two answers; and a leftover."""
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
    question = new_output("display_data", {make.WIDGET_VIEW: view, "text/plain": QUESTION})
    cells = [
        new_markdown_cell(OPENING),
        new_markdown_cell("## See\n*2 minutes*\n\nSee [below](#What-this-does-not-show)."),
        new_code_cell("show(figure)  ", outputs=[display(image_png=png(), text_plain=DESCRIPTION)]),
        new_markdown_cell("It rises. [Source](https://pytorch.org/docs/)"),
        new_code_cell('predict("lines")', outputs=[question]),
        new_markdown_cell("## 2. Exercises\n2 minutes\n\n" + EXERCISE),
        new_code_cell(
            'answer = None\ncheck("add", answer)',
            outputs=[new_output("stream", name="stdout", text=text) for text in ("not ", "yet\n")],
        ),
        new_markdown_cell("## What this does not show\n1 minute\n\nAnything else."),
    ]
    return nbformat.from_dict(new_notebook(cells=cells, metadata={"widgets": widget_state()}))


@pytest.fixture
def good():
    return make.normalize(raw())


@pytest.fixture(autouse=True)
def helpers(monkeypatch):
    """One task and one question, whatever the real ones are."""
    tasks = ModuleType("helpers.course.checkers")
    tasks.TASKS = {"add": SimpleNamespace(hints=("Start at one.",), solution="answer = 1 + 1")}
    questions = ModuleType("helpers.course.questions")
    questions.QUESTIONS = {"lines": ...}
    monkeypatch.setitem(sys.modules, "helpers.course.checkers", tasks)
    monkeypatch.setitem(sys.modules, "helpers.course.questions", questions)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "00_good.ipynb"


def source(number, old, new=""):
    """The offence of other text in a cell."""

    def offend(nb):
        assert old in nb.cells[number].source
        nb.cells[number].source = nb.cells[number].source.replace(old, new)

    return offend


def code(text):
    """The offence of this code."""
    return lambda nb: nb.cells[6].update(source=text)


def output(**data):
    """The offence of this output."""
    return lambda nb: nb.cells[6].update(outputs=[display(**data)])


def stream(name, text):
    return lambda nb: nb.cells[6].update(outputs=[new_output("stream", name=name, text=text)])


def picture(**data):
    """The offence of this in the place of the picture."""
    return lambda nb: nb.cells[2].update(outputs=[display(**data)])


def widget(**data):
    """The offence of this in the place of the widget."""
    return lambda nb: (
        nb.cells[4]
        .outputs[0]
        .data.update({key.replace("_", "/", 1): value for key, value in data.items()})
    )


def widget_png(nb):
    buffer = {"data": png("RGB"), "encoding": "base64", "path": ["value"]}
    models(nb)[0].update(model_name="ImageModel", buffers=[buffer])


def models(nb):
    return list(make.widget_models(nb).values())


def longer(nb):
    nb.cells += [new_markdown_cell("And on.") for _ in range(40)]


OFFENDERS = [
    ("valid", lambda nb: nb.cells[2].outputs[0].pop("metadata"), "metadata"),
    ("normal", lambda nb: nb.cells[2].metadata.update(execution={}), "show"),
    ("normal", source(7, "else.", "else.  "), "What this does not show"),
    ("normal", lambda nb: nb.cells[2].update(id=nb.cells[1].id), "show"),
    ("normal", lambda nb: make.widget_models(nb).update(b1=model("HTMLModel")), "metadata"),
    ("kernelspec", lambda nb: nb.metadata.kernelspec.update(name="venv"), "venv"),
    ("counted", lambda nb: nb.cells[2].update(execution_count=3), "[3, 2, 3]"),
    ("counted", lambda nb: nb.cells[2].update(execution_count=None), "None"),
    ("counted", code(""), "empty"),
    ("faultless", stream("stderr", "UserWarning: hm"), "stderr"),
    ("faultless", stream("stdout", "<object object at 0x7f1afb46f250>"), "0x7f1afb46f250"),
    ("faultless", output(text_html="<b>0x7f1afb46f250</b>"), "address"),
    ("faultless", lambda nb: models(nb)[3]["state"].update(v="0x7f1afb46f250"), "HTMLModel"),
    ("faultless", lambda nb: nb.cells[6].update(outputs=[new_output("error")]), "raises"),
    ("machine_free", stream("stdout", "in /home/me/x.py"), "/home/me"),
    ("machine_free", output(text_html="<a href='file:///x'>"), "file:"),
    ("machine_free", output(text_plain="C:\\Users"), "C:"),
    ("machine_free", code(f'open("{notebook_rules.ROOT}")'), "open"),
    ("machine_free", lambda nb: models(nb)[3]["state"].update(v="at /tmp/x"), "/tmp/x"),
    ("budgets", source(7, "Anything", "Any" * 200_001), "bytes"),
    ("budgets", longer, "48 cells"),
    ("budgets", code("\n".join(["x = 1"] * 26)), "26 lines"),
    ("budgets", lambda nb: [c.update(source="\n" * 7 + "x") for c in nb.cells], "Median"),
    ("printed", stream("stdout", "x\n" * 21), "21 lines"),
    ("printed", output(text_plain="x\n" * 21), "21 lines"),
    ("printed", output(text_plain="tensor([1., 2.])"), "raw tensor"),
    ("described", picture(image_png=png()), "not described"),
    ("described", picture(image_png=png(), text_plain="<Figure size 640x480 with 1 Axes>"), "<Fig"),
    ("described", picture(image_png=png(), text_plain="A line."), "A line."),
    ("described", picture(**{"image_svg+xml": "<svg/>"}), "svg"),
    ("palettes", picture(image_png=png("RGB")), "RGB"),
    ("palettes", picture(image_png=png(width=801)), "801"),
    ("palettes", widget_png, "RGB"),
    ("figures_apart", lambda nb: nb.cells[2].outputs.append(nb.cells[2].outputs[0]), "show"),
    ("figures_apart", lambda nb: nb.cells.insert(2, nb.cells[2]), "show"),
    ("headed", source(0, "# Comp", "Comp"), "title"),
    ("headed", source(1, "## See", "# See"), "title"),
    ("headed", source(5, "### Add", "#### Add"), "from level 2 to 4"),
    ("sections", source(0, "*What you need*", "*Needs*"), "What you need"),
    ("sections", source(0, " No download."), "CPU only"),
    ("sections", source(7, "does not"), "What this does not show"),
    ("timed", source(1, "*2 minutes*"), "'See'"),
    ("timed", source(1, "2 min", "3 min"), "add up to 6"),
    ("timed", source(0, "*Time*: 5", "*Time*: x"), "states no time"),
    ("timed", source(1, "2 min", "30 min"), "at most 25"),
    ("links", source(3, "https://pytorch.org/docs/", "02_nowhere.ipynb"), "leads nowhere"),
    ("links", source(3, "https:", "http:"), "well-formed"),
    ("links", source(3, "pytorch.org", "pytorch"), "well-formed"),
    ("links", source(3, "docs/", "docs /"), "malformed"),
    ("links", source(3, "[Source]", "![]"), "no text"),
    ("links", source(3, "[Source](https:", "<img alt='x' src='http:' /> [Source](https:"), "http:"),
    ("links", source(3, "https://pytorch.org/docs/", "attachment:a.png"), "not attached"),
    ("links", source(1, "#What-this", "#what-this"), "names no heading"),
    ("links", source(1, "(#What", "(there.ipynb#What"), "names no heading"),
    ("links", source(1, "(#What", "(there.md#What"), "names no heading"),
    ("files", code('open("../data/nowhere.png")'), "nowhere.png"),
    ("widgets", widget(text_plain="VBox(children=(RadioButtons(index=0),))"), "no sentence"),
    ("widgets", widget(text_plain="Image of bytes \\x89PNG\\x00 in a row"), "no sentence"),
    ("widgets", lambda nb: nb.cells[4].outputs[0].data.pop("text/plain"), "no sentence"),
    ("widgets", lambda nb: nb.metadata.pop("widgets"), "not stored"),
    ("widgets", lambda nb: make.widget_models(nb).pop(f"{2:032x}"), "VBoxModel refers to"),
    ("widgets", widget_png, "no picture without it"),
    ("compared", lambda nb: nb.cells[2].metadata.update(tags=["nbval-ignore-output"]), "ignore"),
    ("compared", lambda nb: nb.cells[2].metadata.update(tags=["raises-exception"]), "raises"),
    ("compared", code("# NBVAL_SKIP\nx = 1"), "NBVAL_SKIP"),
    ("plain_python", code("%matplotlib inline"), "plain Python"),
    ("plain_python", code("files = !ls"), "plain Python"),
    ("plain_python", code("run('pip install torch')"), "installs"),
    ("plain_python", code("x = 1;"), "silence"),
    ("plain_python", code("@widgets.interact(x=3)\ndef f(x): ..."), "interact"),
    ("plain_python", code("W.interactive_output(f, {})"), "interactive_output"),
    ("plain_python", code("with Output():\n    f()"), "Output"),
    ("plain_python", code("from IPython.display import clear_output"), "clear_output"),
    ("plain_python", code("import urllib.request"), "network"),
    ("plain_python", code("from tqdm.auto import trange"), "tqdm"),
    ("plain_python", code("torch.randn(3)"), "randn"),
    ("plain_python", code("Out[3]"), "history"),
    ("details", source(5, "</details>\n<details>", "<details>"), "match up"),
    ("details", source(5, "<summary>Hint</summary>"), "match up"),
    ("details", source(5, "Hint</summary>\n\n", "Hint</summary>\n"), "blank line"),
    ("exercises", source(5, "Difficulty 1 of 3, "), "difficulty"),
    ("exercises", source(5, ", 2 minutes"), "minutes"),
    ("exercises", source(5, "Exercises", "Try"), "0 headings"),
    ("hints", source(5, "Start at one.", "Start at 1."), "Start at one."),
    ("hints", source(5, "answer = 1 + 1", "answer = 2"), "answer = 1 + 1"),
    ("hints", code('check("subtract", answer)'), "subtract"),
    ("hints", code("check(name, answer)"), "None"),
    ("questions", code('predict("circles")'), "circles"),
    ("questions", code('quiz("lines", "circles")'), "circles"),
]


@pytest.mark.parametrize("rule", RULES)
def test_good_notebook_keeps(rule, good, path):
    assert list(RULES[rule](good, path)) == []


@pytest.mark.parametrize(("rule", "offend", "message"), OFFENDERS)
def test_rule_finds(rule, offend, message, good, path):
    (path.parent / "there.ipynb").write_text(make.dumps(new_notebook()))
    (path.parent / "there.md").write_text("# Something else")
    offend(good)
    assert message in "\n".join(RULES[rule](good, path))


def test_every_rule_has_an_offender():
    assert {rule for rule, _, _ in OFFENDERS} == RULES.keys()


def test_reason_allows_ignoring(good, path, monkeypatch):
    good.cells[2].metadata.tags = ["nbval-ignore-output"]
    monkeypatch.setitem(notebook_rules.IGNORED, (path.stem, good.cells[2].id), "a clock")
    assert list(RULES["compared"](good, path)) == []


def test_links_elsewhere(good, path):
    """Anchors: a notebook's as JupyterLab makes them, a page's as GitHub does."""
    (path.parent / "there.ipynb").write_text(make.dumps(good))
    (path.parent / "there.md").write_text("# Who says `so`?")
    good.cells[3].source = "[a](there.ipynb#Add:-two-numbers) [b](there.md#who-says-so) `x[0](1)`"
    assert list(RULES["links"](good, path)) == []


def test_normalize_is_idempotent_and_survives_the_file(good):
    assert make.normalize(good) == good
    assert make.loads(make.dumps(good)) == json.loads(json.dumps(good))
    assert make.dumps(make.normalize(make.loads(make.dumps(good)))) == make.dumps(good)


def test_normalize_leaves_its_argument_alone():
    nb = raw()
    before = deepcopy(nb)
    make.normalize(nb)
    assert nb == before


def test_normalize_cells(good):
    assert good.cells[2].source == "show(figure)"
    assert [out.text for out in good.cells[6].outputs] == ["not yet\n"]
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


def test_check_writes_nothing(folder, capsys):
    folder("live", "1 + 1")
    before = (folder.path / "live.ipynb").read_bytes()
    assert make.main(["--check"]) == 1
    assert "live.ipynb would change: Cell '1 + 1'" in capsys.readouterr().out
    assert (folder.path / "live.ipynb").read_bytes() == before
    assert not (folder.path / make.STATE).exists()


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import warnings; warnings.warn('hm')", "hm"),
        ("object()", "address"),
        ("import os; os._exit(3)", "ended the kernel"),
    ],
)
def test_fault_leaves_the_file(cell, message, folder):
    folder("bad", "x = 1", cell)
    before = (folder.path / "bad.ipynb").read_bytes()
    with pytest.raises(SystemExit) as stop:
        make.main([])
    assert "bad.ipynb is left as it was." in str(stop.value)
    assert message in str(stop.value) and cell in str(stop.value)
    assert (folder.path / "bad.ipynb").read_bytes() == before


def test_unknown_notebook_is_one_sentence(folder):
    folder("known", "")
    with pytest.raises(SystemExit, match=r"^There is no notebook 'nix' in .* \(there: known\)\.$"):
        make.main(["nix"])


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
