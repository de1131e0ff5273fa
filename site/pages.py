"""The pages beside the notebooks: the front page, claims, symptoms, and the page that decides."""

import re
import tomllib
from functools import cache

import answers
import nbformat
from lessons import ROOT, all_notebooks, figure, in_repository, page, picture

HERE = ROOT / "site"
REFERENCE = re.compile(r"\]\(((?:deeper/|symptoms/)?\w[\w-]*)(#[\w-]+)?\)")
MOST_ASKED = 10
NUMBERED = re.compile(r"\d\d")


@cache
def entries(kind):
    """The tables of claims.toml or symptoms.toml."""
    with open(ROOT / f"{kind}s.toml", "rb") as file:
        return tomllib.load(file)[kind]


@cache
def sources():
    """Every page that a reference may name, and the suffix of its source."""
    known = {page(file): "ipynb" for file in all_notebooks()}
    known |= {name: "md" for name in ("claims", "symptoms", "decide")}
    return known | {f"symptoms/{entry['id']}": "md" for entry in entries("symptom")}


def linked(text, up=""):
    """Markdown whose references, "01_two_backbones#answer" and "claims#eps-0", are links."""
    known = sources()

    def link(match):
        name, label = match[1], match[2] or ""
        return f"]({up}{name}.{known[name]}{label})" if name in known else match[0]

    return REFERENCE.sub(link, text)


@cache
def read(notebook):
    return nbformat.read(notebook, 4)


def title(notebook):
    first = read(notebook).cells[0].source
    number = f"{notebook.stem[:2]} " if NUMBERED.match(notebook.stem) else ""
    return number + first.splitlines()[0].removeprefix("# ")


def course(files):
    rows = ["| lesson | in one sentence | minutes |", "|---|---|---|"]
    for file in files:
        first = read(file).cells[0].source
        sentence = re.search(r"\*\*In one sentence:\*\* (.+)", first)[1]
        minutes = re.search(r"\*\*Time:\*\* (\d+) minutes", first)[1]
        rows.append(f"| [{title(file)}]({page(file)}.ipynb) | {sentence} | {minutes} |")
    return "\n".join(rows)


def contents(caption, names):
    return "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *names, "```"])


def ran(entry):
    """A snippet with a button to copy it, and what it prints."""
    return (
        f"::::{{container}} copy\n```python\n{entry['snippet'].strip()}\n```\n::::\n\n"
        f"It prints\n\n```text\n{entry['prints'].strip()}\n```"
    )


def shown(reference):
    """The figure of a cell: "04_small_batches:split-picture"."""
    name, cell_id = reference.split(":")
    nb = read(ROOT / "notebooks" / f"{name}.ipynb")
    cell = next(cell for cell in nb.cells if cell.id == cell_id)
    shown = (output.data for output in cell.outputs if picture(output.get("data", {})))
    kind, _, width = picture(data := next(shown))
    html = figure(name, cell_id, kind, data["text/plain"], width)
    return html.replace('id="figure-', 'id="shown-').replace('href="#', f'href="{name}.html#')


def proved(reference):
    name, _, cell = reference.partition(":")
    if name.endswith(".py"):
        return in_repository(name, f"proved by `{reference}`")
    return f"[proved]({name}.ipynb#cell-{cell})"


def claim(entry):
    parts = [
        f'<a id="{entry["id"]}"></a>\n## {entry["sentence"]}',
        f"**Holds for:** {entry['holds_for'].rstrip('.')}. Last run with torch {entry['held']}.",
        ran(entry),
        shown(entry["figure"]) if "figure" in entry else "",
        f"[explained]({entry['section']}) · {proved(entry['proof'])} · [source]({entry['source']})",
        f'<button class="paste" data-claim="{entry["id"]}">Copy sentence and link</button>',
    ]
    return "\n\n".join(filter(None, parts))


def claims_page():
    head = (
        "# Claims, each with its proof\n\nEach has an address that lasts, a proof that the tests "
        "run, and a snippet that needs torch, torchvision and numpy only and downloads nothing. "
        "The snippets are CC0: paste them as your own."
    )
    return linked("\n\n".join([head, *map(claim, entries("claim"))]))


def leads(entry):
    if "section" in entry:
        return f"[explained here]({entry['section']})"
    return f"[what happens, and what to do](symptoms/{entry['id']})"


def symptoms_page():
    head = "# Symptoms\n\nWhat people say they see. Each leads to a lesson's section, or to a page."
    parts = [
        f'<a id="{entry["id"]}"></a>\n## {entry["says"]}\n\n{entry["answer"]} {leads(entry)} · '
        f"[asked in public]({entry['thread']})"
        for entry in entries("symptom")
    ]
    return linked("\n\n".join([head, *parts]))


def symptom_page(entry):
    parts = [
        f"---\norphan: true\n---\n# {entry['says']}",
        entry["happens"],
        ran(entry),
        "## What to do",
        entry["do"],
        " · ".join(
            [
                *([f"[read on]({entry['more']})"] if "more" in entry else []),
                f"[asked in public]({entry['thread']})",
                "[all symptoms](symptoms)",
            ]
        ),
    ]
    return linked("\n\n".join(parts), "../")


def answer_page(name):
    text = (answers.ANSWERS / f"{name}.md").read_text(encoding="utf-8")
    return linked(re.sub(r"\{site\}/([\w/-]+)\.html", r"\1", text), "../")


def most_asked():
    rows = sorted(entries("symptom"), key=lambda entry: -entry.get("asked", 0))[:MOST_ASKED]
    return "\n".join(f"- **{entry['says']}**: {entry['answer']} {leads(entry)}" for entry in rows)


def front_page(toggle):
    lessons = [file for file in all_notebooks() if NUMBERED.match(file.stem)]
    deeper = [file for file in all_notebooks() if file not in lessons]
    text = (HERE / "index.md").read_text(encoding="utf-8")
    for name, part in (
        ("toggle", toggle),
        ("symptoms", most_asked()),
        ("lessons", course(lessons)),
        ("deeper", course(deeper)),
    ):
        text = text.replace(f"{{{name}}}", part)
    written = [f"answers/{name}" for name in answers.known()]
    data = sorted(file.relative_to(ROOT).with_suffix("") for file in ROOT.glob("data/**/README.md"))
    return "\n\n".join(
        [
            linked(text),
            contents("Answers", ["symptoms", "claims", "decide", *written]),
            contents("The course", [f"{title(file)} <{page(file)}>" for file in lessons]),
            contents("Deeper", [page(file) for file in deeper]),
            contents("What is stored", [name.as_posix() for name in data]),
        ]
    )


def all_pages(toggle):
    """Every page's path and its Markdown."""
    pages = {"index.md": front_page(toggle), "claims.md": claims_page()}
    pages |= {"symptoms.md": symptoms_page()}
    pages["decide.md"] = linked((HERE / "decide.md").read_text(encoding="utf-8"))
    for entry in entries("symptom"):
        if "section" not in entry:
            pages[f"symptoms/{entry['id']}.md"] = symptom_page(entry)
    pages |= {f"answers/{name}.md": answer_page(name) for name in answers.known()}
    return pages
