"""Export notebooks as single HTML pages that ask the network for nothing.

    python tools/export.py 01_two_backbones    writes build/01_two_backbones.html

In such a page the questions answer and the explorers' presets switch. nbconvert's own page fetches
the widgets' script from a CDN; this one holds it (vendor/), and forbids itself every request.
"""

import base64
import sys
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
VENDOR = ROOT / "tools" / "vendor"

# 'unsafe-eval': embed.js compiles the widgets' schema. The empty script: embed.js takes a script's
# address for the place of its fonts, and stops if there is none.
TEMPLATE = """
{%- extends "lab/index.html.j2" -%}
{%- block html_head_js -%}
<meta http-equiv="Content-Security-Policy"
  content="default-src data: 'unsafe-inline' 'unsafe-eval'">
{%- endblock -%}
{%- block jupyter_widgets -%}
<script src="data:,"></script><script>{{ resources.widgets }}</script>
{%- endblock -%}
{%- block html_head_css -%}
<style>
.jupyter-widgets { font-family: var(--jp-ui-font-family); }
.jupyter-widgets button { font-family: inherit; }
</style>
{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block data_png -%}
<div class="jp-RenderedImage jp-OutputArea-output">
<img src="data:image/png;base64,{{ output.data["image/png"] }}"
  alt="{{ output.data["text/plain"] | escape_html_keep_quotes }}"></div>
{%- endblock -%}
"""


def page(notebook: Path) -> str:
    """The notebook, outputs and widgets as they are stored, as one HTML page."""
    script = (VENDOR / "embed.js").read_text(encoding="utf-8")
    for font in VENDOR.glob("*.woff2"):
        data = base64.b64encode(font.read_bytes()).decode()
        script = script.replace(f'n.p+"{font.name}"', f'"data:font/woff2;base64,{data}"')
    resources = {"metadata": {"name": notebook.stem}, "widgets": script}
    exporter = HTMLExporter(raw_template=TEMPLATE)
    return exporter.from_notebook_node(nbformat.read(notebook, 4), resources)[0]


if __name__ == "__main__":
    for name in sys.argv[1:]:
        source, target = NOTEBOOKS / f"{name}.ipynb", ROOT / "build" / f"{name}.html"
        if not source.is_file():
            raise SystemExit(f"There is no notebook {name!r} in {NOTEBOOKS.name}/.")
        target.parent.mkdir(exist_ok=True)
        target.write_text(page(source), encoding="utf-8")
        print(f"wrote {target.relative_to(ROOT)}")
