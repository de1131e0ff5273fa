"""A notebook as MyST-NB shall read it: figures as files, explorers for the shim, links."""

import base64
import os
import posixpath
import re
import struct
from html import escape
from pathlib import Path

import nbformat
from course import notebooks
from export import WIDGET_VIEW, explorers
from nbconvert.preprocessors import ClearOutputPreprocessor

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = os.environ.get("SITE_REPOSITORY", "")  # https://github.com/OWNER/NAME
REF = os.environ.get("SITE_REF", "main")
LINK = re.compile(r"\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
PAGES = {"README.md": "index.md", "symptoms.toml": "symptoms.md", "claims.toml": "claims.md"}
KINDS = {"image/png": "png", "image/svg+xml": "svg"}
QUESTION = re.compile(r"((from|import) .+\n+)*((predict|quiz)\(.+\)\n*)+")
WIDEST = 800


def all_notebooks():
    """The lessons, then the deeper ones."""
    return [ROOT / name for name in notebooks()]


def page(notebook):
    """A notebook's page on the site: "01_two_backbones", "deeper/ways_to_freeze"."""
    return notebook.relative_to(ROOT / "notebooks").with_suffix("").as_posix()


def place(file):
    """Where a file of the repository stands on the site, or None if it is not on it."""
    if file.startswith("notebooks/") and file.endswith(".ipynb"):
        return file.removeprefix("notebooks/")
    if re.fullmatch(r"data/(.+/)?README\.md", file):
        return file
    return PAGES.get(file)


def in_repository(file, text):
    """A link to a file that the site does not hold, where the repository has an address."""
    return f"[{text}]({ADDRESS}/blob/{REF}/{file})" if ADDRESS else text


def relinked(text, file):
    """Markdown with its relative links led to the site's pages, or else to the repository."""

    def follow(match):
        words, path, label = match.groups()
        target = posixpath.normpath(posixpath.join(posixpath.dirname(file), path))
        if to := place(target):
            here = posixpath.dirname(place(file)) or "."
            return f"[{words}]({posixpath.relpath(to, here)}{label or ''})"
        return in_repository(target, words)

    return LINK.sub(follow, text)


def picture(data):
    """What a figure's file is: "png" or "svg", its bytes, its width on the page; None if none."""
    for mime in KINDS.keys() & data.keys():
        if mime == "image/svg+xml":
            return "svg", data[mime].encode(), None
        content = base64.b64decode(data[mime])
        return "png", content, min(WIDEST, *struct.unpack(">I", content[16:20]))


def figure_name(page, cell, kind):
    """The lasting name of a cell's figure: "04-split-picture.png"."""
    stem = posixpath.basename(page)
    return f"{stem[:2] if stem[:2].isdigit() else stem}-{cell}.{kind}"


def figure(page, cell, kind, description, width, up=""):
    address = f"{up}figures/{figure_name(page, cell, kind)}"
    wide = f' width="{width}"' if width else ""
    return (
        f'<figure class="shown" id="figure-{cell}"><a href="{address}">'
        f'<img src="{address}" alt="{escape(description)}" loading="lazy"{wide}></a>'
        f'<a class="headerlink" href="#figure-{cell}" title="Link to this figure">#</a></figure>'
    )


class Converter:
    """Converts notebooks, and writes their figures into a folder."""

    def __init__(self, folder):
        self.folder = folder

    def convert(self, file):
        """The notebook for MyST-NB, and its explorers: {"modules": …, "models": …}."""
        nb = nbformat.read(file, 4)
        modules, models = explorers(nb)
        for cell in nb.cells:
            cell.metadata["id"] = cell.id
            if cell.cell_type == "markdown":
                cell.source = relinked(cell.source, file.relative_to(ROOT).as_posix())
            elif cell.cell_type == "code":
                self._convert_outputs(cell, page(file), models)
        return nb, {"modules": modules, "models": models}

    def _convert_outputs(self, cell, page, models):
        tags = cell.metadata.setdefault("tags", [])
        folded = cell.metadata.get("jupyter", {})
        if "collapsed" in tags:
            tags.append("hide-cell" if "source_hidden" in folded else "hide-output")
        elif folded:  # the verdict on an exercise that nobody has tried
            tags.append("remove-output")
        if QUESTION.fullmatch(cell.source.strip()):
            tags.append("remove-input")
        shown = [self._html(cell, output.get("data", {}), page, models) for output in cell.outputs]
        alive = any(html and "data-explorer" in html for html in shown)
        outputs = []
        for output, html in zip(cell.outputs, shown, strict=True):
            if alive and html and html.startswith("<figure"):  # the explorer's still picture
                html = f"<noscript>{html.replace(' id=', ' data-id=')}</noscript>"
            if html:
                output.data = nbformat.from_dict({"text/html": html})
            outputs.append(output)
        cell.outputs = outputs

    def _html(self, cell, data, page, models):
        """What stands on the site for an output that Sphinx would not show as we want it."""
        if found := picture(data):
            kind, content, width = found
            (self.folder / figure_name(page, cell.id, kind)).write_bytes(content)
            return figure(page, cell.id, kind, data["text/plain"], width, "../" * page.count("/"))
        if WIDGET_VIEW not in data:
            return None
        if (key := data[WIDGET_VIEW]["model_id"]) in models:
            return f'<div data-explorer="{key}" id="figure-{cell.id}"></div>'
        return "<p><em>This control needs Python: it works in the notebook.</em></p>"


def without_outputs(file):
    """The notebook as it is offered for download."""
    nb = nbformat.read(file, 4)
    nb.metadata.pop("widgets", None)
    return nbformat.writes(ClearOutputPreprocessor().preprocess(nb, {})[0])
