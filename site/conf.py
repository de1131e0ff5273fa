"""Sphinx's settings for the pages that make.py writes, and what these need beyond MyST-NB."""

import re
import tomllib
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from lessons import ADDRESS, REF
from pages import entries
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

project = "Two backbones"
author = "the Two Backbones authors"
project_copyright = "code: BSD-3-Clause; text and figures: CC BY 4.0; snippets: CC0"
extensions = ["myst_nb", "sphinx_copybutton"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}

html_theme = "sphinx_book_theme"
html_title = "Two backbones"
html_static_path = ["assets"]
html_css_files = ["style.css"]
html_js_files = [("paste.js", {"defer": "defer"})]
html_context = {"default_mode": "auto"}
html_show_sphinx = False
html_show_search_summary = False  # it would fetch pages, which a browser forbids to a folder
html_last_updated_fmt = None
html_math_renderer = "mathml"
html_theme_options = {
    "path_to_docs": "notebooks",
    "use_fullscreen_button": False,
    "home_page_in_toc": True,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "navbar_persistent": [],
}
if ADDRESS:
    html_theme_options |= {
        "repository_url": ADDRESS,
        "repository_branch": REF,
        "use_repository_button": True,
    }

nb_execution_mode = "off"
nb_merge_streams = True
nb_ipywidgets_js = {}
nb_code_prompt_show = "Predict first, then open: {type}"
nb_code_prompt_hide = "Close"
myst_enable_extensions = ["colon_fence", "dollarmath"]
suppress_warnings = ["myst.xref_missing"]  # labels, which a test follows
copybutton_selector = "div.copy div.highlight pre"

LABEL = re.compile(r'<a id="([^"]+)"></a>')
FIRST = tomllib.loads(Path(__file__).with_name("terms.toml").read_text(encoding="utf-8"))
ALSO = {f"symptoms#{symptom['id']}": symptom["words"] for symptom in entries("symptom")}


class Label(SphinxTransform):
    """Gives sections and cells their lasting ids, and the index their terms."""

    default_priority = 840  # before the index is made of it

    def apply(self):
        for holder in list(self.document.findall(nodes.paragraph)):
            if label := LABEL.fullmatch(holder.astext().strip()):
                section = holder.next_node(nodes.section, descend=False, siblings=True, ascend=True)
                section["ids"] = [label[1]]
                holder.parent.remove(holder)
                here = f"{self.env.docname}#{label[1]}"
                entries = [
                    ("single", term, label[1], main, None)
                    for terms, main in ((FIRST, "main"), (ALSO, ""))
                    for term in terms.get(here, [])
                ]
                section.insert(1, addnodes.index(entries=entries))
        for cell in self.document.findall(nodes.container):
            if cell.get("nb_element") == "cell_code":
                cell["ids"] = [f"cell-{cell['cell_metadata']['id']}"]


def formula(translator, node):
    block = isinstance(node, nodes.math_block)
    translator.body.append(tex2mathml(node.astext(), as_block=block))
    raise nodes.SkipNode


def put_in_explorers(app, page, template, context, doctree):
    """Mount a page's explorers: their modules, their stored frames, and the shim."""
    stored = app.srcdir / "explorers" / f"{page}.json"
    if stored.exists():
        shim = (app.confdir / "shim.js").read_text(encoding="utf-8")
        data = stored.read_text(encoding="utf-8").replace("</", "<\\/")
        context["body"] += (
            f'<script type="application/json" id="explorers">{data}</script>'
            f'<script type="module">{shim}</script>'
        )


def offer_to_run(app, page, template, context, doctree):
    """Link a notebook to Binder at the tag, and to its copy for Colab beside the published site."""
    if not (ADDRESS and (app.srcdir / f"{page}.ipynb").exists()):
        return
    name = ADDRESS.removeprefix("https://github.com/")
    hosts = {"Binder": f"https://mybinder.org/v2/gh/{name}/{REF}"}
    hosts["Binder"] += f"?urlpath=lab/tree/notebooks/{page}.ipynb"
    if re.match(r"v\d", REF):  # the copies for Colab are made at a tag
        hosts["Colab"] = f"https://colab.research.google.com/github/{name}/blob/gh-pages"
        hosts["Colab"] += f"/{REF}/colab/{page}.ipynb"
    context["header_buttons"].append(
        {
            "type": "group",
            "tooltip": "Run this notebook",
            "icon": "fas fa-rocket",
            "label": "launch-buttons",
            "buttons": [
                {"type": "link", "text": name, "tooltip": f"Run on {name}", "url": url}
                for name, url in hosts.items()
            ],
        }
    )


def setup(app):
    app.add_html_math_renderer("mathml", (formula, None), (formula, None))
    app.add_transform(Label)
    app.connect("html-page-context", put_in_explorers)
    app.connect("html-page-context", offer_to_run, priority=600)  # after the theme made its own
