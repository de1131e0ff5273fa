"""What holds for every notebook, beyond what nbval compares.

A rule takes a notebook and the path where it is stored, and yields one sentence per offence.
"""

import ast
import importlib.util
import itertools
import json
import re
import statistics
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from nbval.plugin import comment_markers, metadata_tags

ROOT = Path(__file__).resolve().parent.parent

LARGEST_FILE = 600_000
MOST_WORDS, MOST_LINES, MOST_CELLS, MOST_EXERCISES = 1000, 100, 28, 2
LONGEST_MEDIAN, DEEPER_MEDIAN = 6, 8
LONGEST_CELL, CONCEPT_CELL = 14, 20  # one cell may write out the concept
MOST_PRINTED_LINES = 12
LONGEST_COURSE = 35  # as readers take it; 25 is the aim
SHORTEST_DESCRIPTION = 40

PROMISE = "CPU only. Deterministic. No download."
OPENING = {"In one sentence", "You will be able to", "You need", "Time"}
CLOSING = {"On Monday", "Background and sources", "What this does not show"}
# Lessons; the start page; the deeper notebooks, optional, which name the lesson they belong to.
EXPECTED = {
    "start": OPENING,
    "lesson": OPENING | CLOSING,
    "deeper": {"In one sentence", "You come from", "Time"} | CLOSING - {"On Monday"},
}
LABEL = re.compile(r'^<a id="([^"]*)"></a>$')  # above each heading: links point at it for good
SLUG = re.compile(r"[a-z]\w*(-\w+)*")
MINUTES = re.compile(r"\b(\d+) min(?:utes?)?\b")
REPR = re.compile(r"^<(?:Figure|PIL|IPython|matplotlib)|^\w+\(|\\x[0-9a-f]{2}|\b[0-9a-f]{32}\b")
MACHINE_PATH = re.compile(
    r"(?<![\w.:/])/(?:home|root|Users|tmp|usr|opt|var|mnt|etc|srv|private|content|workspace)/"
    rf"|{re.escape(str(ROOT))}|\b[A-Z]:\\\w|\bfile://"
)
FOREIGN_NAMES = {
    "interact interactive interactive_output Output": "nbval cannot follow it: use observe",
    "clear_output update_display": "nbval does not see it",
    "get_ipython": "a notebook is plain Python",
    "In Out": "nbval keeps no history",
    "tqdm": "a progress bar is never the same twice",
    "requests urllib load_state_dict_from_url": "a notebook has no network",
    "randn randn_like": "it differs from processor to processor: draw with rand",
}
LINK = re.compile(
    r'(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(<?((?:[^()\s]|\([^()\s]*\))+)>?(?: "[^"]*")?\)'
)
TAG_LINK = re.compile(r"<(?:a|img)\b[^>]*?\b(?:href|src)=[\"']([^\"']*)[\"']")

RULES = {}


def rule(check):
    RULES[check.__name__] = check
    return check


# notebooks/make.py, which is a script and in no package
spec = importlib.util.spec_from_file_location("notebooks_make", ROOT / "notebooks" / "make.py")
spec.loader.exec_module(make := importlib.util.module_from_spec(spec))


def code(nb):
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def prose(nb):
    return [cell for cell in nb.cells if cell.cell_type == "markdown"]


def outputs(nb):
    """Every cell with each of its outputs."""
    return [(cell, output) for cell in code(nb) for output in cell.outputs]


def without_blocks(markdown):
    """Markdown less its code blocks, in which # is no heading."""
    return re.sub(r"^(```|~~~).*?^\1", "", markdown, flags=re.MULTILINE | re.DOTALL)


def without_code(markdown):
    """Markdown less all of its code, in which [a](b) is no link."""
    return re.sub(r"`[^`\n]*`", "", without_blocks(markdown))


def headings(nb):
    """(level, title, text up to the next heading) of every heading."""
    text = without_blocks("\n\n".join(cell.source for cell in prose(nb)))
    parts = re.split(r"^(#{1,6}) +(.+)$", text, flags=re.MULTILINE)[1:]
    return [(len(parts[i]), parts[i + 1].strip(), parts[i + 2]) for i in range(0, len(parts), 3)]


def plain(markdown):
    """A heading as the page shows it."""
    return re.sub(r"[*`]|<[^>]*>", "", LINK.sub(r"\2", markdown))


def lines_beyond_imports(cell):
    """The lines of a code cell that a reader reads."""
    lines = (line for line in cell.source.splitlines() if line.strip())
    return [line for line in lines if not line.startswith(("import ", "from "))]


def tree(cell):
    """The syntax tree of a code cell; an empty one where it is not plain Python."""
    try:
        return ast.parse(cell.source)
    except SyntaxError:
        return ast.Module([], [])


def names(cell):
    """The names that a cell uses."""
    found = set()
    for node in ast.walk(tree(cell)):
        for part in ("id", "attr", "name", "module"):
            found.update(str(getattr(node, part, None)).split("."))
    return found


def checks_in(cells):
    """How often these cells call `check`."""
    calls = [node for cell in cells for node in ast.walk(tree(cell)) if isinstance(node, ast.Call)]
    return sum(isinstance(call.func, ast.Name) and call.func.id == "check" for call in calls)


def kind_of(path):
    """What the notebook is: a key of EXPECTED."""
    if path.parent.name == "deeper":
        return "deeper"
    return "start" if path.stem == "00_start_here" else "lesson"


def words(nb):
    """The number of words of prose: solutions' code, marks and the minutes of sections apart."""
    text = without_blocks("\n\n".join(cell.source for cell in prose(nb)))
    text = re.sub(r"</?\w+[^>]*>", " ", LINK.sub(r"\2", text))
    text = re.sub(rf"^\*{MINUTES.pattern}\*$", "", text, flags=re.MULTILINE)
    return len([word for word in text.split() if re.search(r"\w", word)])


@rule
def normal(nb, path):
    if make.dumps(nb) != make.dumps(make.normalize(nb)):
        where = make.difference(nb, make.normalize(nb))
        yield f"Not as notebooks/make.py writes it: {where}. Run it; edit no outputs by hand."


@rule
def fresh(nb, path):
    if make.refreshed(nb) != nb:
        yield "Its explorers run old JavaScript or CSS in the page: run notebooks/make.py."


@rule
def faultless(nb, path):
    yield from make.faults(nb)


@rule
def machine_free(nb, path):
    """No path of the machine that made the notebook."""
    texts = [(make.title(cell), cell.source) for cell in nb.cells]
    texts += [
        (make.title(cell), content if isinstance(content, str) else json.dumps(content))
        for cell, output in outputs(nb)
        for mime, content in [("", output.get("text", "")), *output.get("data", {}).items()]
        if not mime.startswith("image/")
    ]
    texts += [
        (f"Widget {model_id[-4:]}", str(value))
        for model_id, model in make.widget_models(nb).items()
        for value in model["state"].values()
    ]
    for where, text in texts:
        for match in MACHINE_PATH.finditer(re.sub(r"base64,[\w+/=]+", "", text)):
            yield f"{where} holds a machine's path: {text[match.start() :][:40]!r}"


@rule
def budgets(nb, path):
    if (size := len(make.dumps(nb).encode())) > LARGEST_FILE:
        yield f"{size} bytes; at most {LARGEST_FILE}."
    lengths = [len(lines_beyond_imports(cell)) for cell in code(nb)] or [0]
    median = DEEPER_MEDIAN if kind_of(path) == "deeper" else LONGEST_MEDIAN
    for count, most, what in (
        (words(nb), MOST_WORDS, "words of prose"),
        (sum(lengths), MOST_LINES, "lines of code"),
        (len(nb.cells), MOST_CELLS, "cells"),
        (statistics.median(lengths), median, "lines in the median cell"),
        (max(lengths), CONCEPT_CELL, "lines in the longest cell"),
        (sum(length > LONGEST_CELL for length in lengths), 1, f"cells above {LONGEST_CELL} lines"),
        (len(exercise_sections(nb)), MOST_EXERCISES, "exercises"),
    ):
        if count > most:
            yield f"{count} {what}; at most {most}."


@rule
def collapsed(nb, path):
    """Neither an output nor what it means stands open below the prediction of it."""
    for cell, after in itertools.pairwise(code(nb)):
        shown = make.COLLAPSED not in after.metadata.get("tags", [])
        if "predict" in names(cell) and after.outputs and shown:
            yield f"{make.title(after)} shows what is to be predicted: tag it {make.COLLAPSED}."
    for cell, after in itertools.pairwise(nb.cells):
        is_open = after.cell_type == "markdown" and not after.source.startswith(("<details>", "<a"))
        if make.COLLAPSED in cell.metadata.get("tags", []) and is_open:
            yield f"Cell {after.id} tells what is to be predicted: fold it in <details>."


@rule
def labelled(nb, path):
    """Every section has a label and every cell an id, in words that stay."""
    labels = []
    for cell in prose(nb):
        lines = ["", *without_blocks(cell.source).splitlines()]
        for above, line in itertools.pairwise(lines):
            if re.match(r"##+ ", line):
                label = LABEL.match(above)
                labels.append(label[1] if label else "")
                if not label or not SLUG.fullmatch(label[1]):
                    yield f'{line!r} has no label above it, as in <a id="two-causes"></a>.'
    if len(labels) > len(set(labels)):
        yield f"A label stands twice: {labels}."
    for cell in nb.cells:
        if not SLUG.fullmatch(cell.id) or re.fullmatch(r"cell-\d+|[0-9a-f]{8}", cell.id):
            yield f"{make.title(cell)} has an id that says nothing: {cell.id!r}."


@rule
def printed(nb, path):
    for cell in code(nb):
        text = "".join(out.text for out in cell.outputs if "text" in out)
        bare = [out.data for out in cell.outputs if set(out.get("data", [])) == {"text/plain"}]
        text += "\n".join(data["text/plain"] for data in bare)
        if (lines := len(text.splitlines())) > MOST_PRINTED_LINES:
            yield f"{make.title(cell)} prints {lines} lines; at most {MOST_PRINTED_LINES}."
        if match := re.search(r"\b(?:tensor|array|Parameter)\(\[", text):
            yield f"{make.title(cell)} prints a raw {match[0][:-2]}."


@rule
def described(nb, path):
    """nbval skips pictures: their description is what it compares."""
    for cell, output in outputs(nb):
        data = output.get("data", {})
        if "image/png" in data:
            text = data.get("text/plain", "")
            if len(text) < SHORTEST_DESCRIPTION or REPR.search(text):
                yield f"{make.title(cell)} shows a picture that is not described: {text[:60]!r}"


@rule
def headed(nb, path):
    levels = [level for level, _, _ in headings(nb)]
    if not nb.cells or not nb.cells[0].source.startswith("# ") or levels.count(1) != 1:
        yield "A notebook starts with its title, the one heading of level 1."
    for (before, _, _), (after, name, _) in zip(headings(nb), headings(nb)[1:], strict=False):
        if after > before + 1:
            yield f"The heading {name!r} jumps from level {before} to {after}."


@rule
def sections(nb, path):
    text = "\n".join(cell.source for cell in prose(nb))
    for section in sorted(EXPECTED[kind_of(path)] | {PROMISE}):
        if section not in text:
            yield f"{section!r} is missing."


@rule
def timed(nb, path):
    """Minutes under every section heading, as many in all as the opening says."""
    total = 0
    for level, name, body in headings(nb):
        if level == 2 and name not in OPENING:
            first = body.strip().split("\n")[0]
            if match := MINUTES.search(first):
                total += int(match[1])
            else:
                yield f"No minutes under {name!r}, but {first[:40]!r}."
    text = "\n".join(cell.source for cell in prose(nb))
    stated = re.search(rf"\bTime\b[^\w\n]*\s*(?:about )?{MINUTES.pattern}", text)
    if not stated:
        yield "The opening states no time, as in '*Time*: 20 minutes'."
    elif int(stated[1]) != total:
        yield f"The opening states {stated[1]} minutes, the sections add up to {total}."
    if total > LONGEST_COURSE:
        yield f"{total} minutes; at most {LONGEST_COURSE}."


@cache
def anchors(path):
    """The anchors of a stored notebook or page."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        return notebook_anchors(make.loads(text))
    titles = re.findall(r"^#{1,6} +(.+)$", without_blocks(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", plain(name).lower()).replace(" ", "-") for name in titles}


def notebook_anchors(nb):
    """JupyterLab's anchors: the heading with hyphens for blanks."""
    return {plain(name).replace(" ", "-") for _, name, _ in headings(nb)}


@rule
def links(nb, path):
    for cell in prose(nb):
        text = without_code(cell.source)
        for match in LINK.finditer(text):
            if not plain(match[2]).strip():
                yield f"{make.title(cell)}: the link or picture {match[3]!r} has no text."
        for match in re.finditer(r"\]\(", LINK.sub("", text)):
            yield f"{make.title(cell)}: a malformed link near {text[match.start() :][:40]!r}."
        targets = [match[3] for match in LINK.finditer(text)] + TAG_LINK.findall(text)
        targets += re.findall(r"<(https?://[^>]*)>", text)
        for target in targets:
            if problem := dead(target, nb, path, cell):
                yield f"{make.title(cell)}: {target!r} {problem}."


def dead(target, nb, path, cell):
    """What is wrong with the target of a link, or nothing."""
    url = urlsplit(target)
    if url.scheme == "attachment":
        return "" if target.partition(":")[2] in cell.get("attachments", {}) else "is not attached"
    if url.scheme or url.netloc:
        well_formed = url.scheme == "https" and re.fullmatch(r"([\w-]+\.)+[a-z]{2,}", url.netloc)
        return "" if well_formed else "is not a well-formed https address"
    file = path.parent / unquote(url.path) if url.path else path
    if url.path and not file.exists():
        return "leads nowhere"
    if url.fragment:
        known = anchors(file.resolve()) if url.path else notebook_anchors(nb)
        return "" if unquote(url.fragment) in known else "names no heading there"
    return ""


@rule
def widgets(nb, path):
    """Whole without a kernel; a sentence without widgets."""
    models = make.widget_models(nb)
    for model in models.values():
        for reference in make.references(model):
            if reference not in models:
                yield f"A {model['model_name']} refers to {reference}, which is not stored."
    for cell, output in outputs(nb):
        data = output.get("data", {})
        if make.WIDGET_VIEW not in data:
            continue
        text = data.get("text/plain", "")
        own = "import ipywidgets" in cell.source  # the reader's own, whose text is their repr
        if not own and (REPR.search(text) or len(text.split()) < 4):
            yield f"{make.title(cell)} shows a widget whose text is no sentence: {text[:60]!r}"
        if (model_id := data[make.WIDGET_VIEW]["model_id"]) not in models:
            yield f"{make.title(cell)} shows a widget that is not stored: {model_id}"


@rule
def compared(nb, path):
    """nbval compares every cell."""
    for cell in code(nb):
        text = " ".join([cell.source, *cell.metadata.get("tags", [])])
        for mark in sorted({*comment_markers, *metadata_tags, "skip-execution"}):
            if mark in text:
                yield f"{make.title(cell)} is {mark}."


@rule
def plain_python(nb, path):
    for cell in code(nb):
        try:
            ast.parse(cell.source)
        except SyntaxError as error:
            yield f"{make.title(cell)} is not plain Python (a magic, a shell command?): {error}"
        if re.search(r"\bpip3? install\b", cell.source):
            yield f"{make.title(cell)} installs something."
        if cell.source.endswith(";"):
            yield f"{make.title(cell)} ends with ';', which nbval does not take for silence."
        used = names(cell)
        for foreign, reason in FOREIGN_NAMES.items():
            for name in sorted(used.intersection(foreign.split())):
                yield f"{make.title(cell)} uses {name}: {reason}."


@rule
def details(nb, path):
    """Each <details> closes in its cell, has a summary, and leaves a blank line for Markdown."""
    for cell in prose(nb):
        tags = re.findall(r"<(/?details|summary)\b", without_code(cell.source))
        if re.sub(r"details summary /details ?", "", " ".join(tags)):
            yield f"{make.title(cell)}: <details>, <summary>, </details> do not match up: {tags}"
        if re.search(r"</summary>[^\n]*\n[^\n]*\S", cell.source):
            yield f"{make.title(cell)}: no blank line after </summary>, so no Markdown in it."


def exercise_sections(nb):
    """[title, text with its code blocks, code cells] of every heading below an "Exercise"."""
    found, inside = [], False
    for cell in nb.cells:
        if cell.cell_type == "code" and inside:
            found[-1][2].append(cell)
        fenced = False
        for line in cell.source.splitlines() if cell.cell_type == "markdown" else ():
            fenced ^= line.startswith("```")
            heading = None if fenced else re.match(r"(#+) +(.+)", line)
            if heading and len(heading[1]) <= 2:
                inside, below = False, "Exercise" in heading[2]
            elif heading and below:
                inside = True
                found.append([heading[2], "", []])
            elif inside:
                found[-1][1] += line + "\n"
    return found


@rule
def exercises(nb, path):
    """Every exercise says how hard and how long it is, and is checked once; nothing else is."""
    checks = checks_in(code(nb))
    for name, text, cells in exercise_sections(nb):
        if "difficulty" not in text.lower() or not MINUTES.search(text):
            yield f"{name!r} does not say its difficulty and minutes."
        if (number := checks_in(cells)) != 1:
            yield f"{name!r} is checked {number} times."
        checks -= number
    if checks:
        yield f"{checks} checks stand below no heading in 'Exercises'."


@rule
def hints(nb, path):
    """Every exercise has a hint, and a solution in a block of Python, each folded away."""
    for name, text, _ in exercise_sections(nb):
        folded = re.findall(
            r"<details><summary>([^<]*)</summary>\n\n(.*?)\n</details>", text, re.DOTALL
        )
        solutions = [block for summary, block in folded if summary == "Solution"]
        if len(folded) == len(solutions):
            yield f"{name!r} has no hint in <details>."
        if [block.startswith("```python\n") for block in solutions] != [True]:
            yield f"{name!r} has no solution, a block of Python in <details>."


@rule
def questions(nb, path):
    """A question shows itself only as the last line of a cell."""
    for cell in code(nb):
        for node in ast.walk(ast.Module(tree(cell).body[:-1], [])):
            if isinstance(node, ast.Name) and node.id in ("predict", "quiz"):
                yield f"{make.title(cell)}: {node.id} is not the last line, so it shows nothing."
