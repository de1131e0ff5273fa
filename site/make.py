"""Make the site from the committed notebooks: build/site/, which needs neither network nor kernel.

    python site/make.py              build it
    python site/make.py --anchors    and add its new addresses to site/anchors.txt

Nothing is executed: outputs, figures and explorers are those that the notebooks hold. The folder
can be opened from a disk, a USB stick or a server. SITE_REPOSITORY (https://github.com/OWNER/NAME)
and SITE_REF (a tag) bring links to the repository, Binder and Colab.
"""

import json
import re
import shutil
import sys
from pathlib import Path

from sphinx.cmd.build import main as sphinx

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT / "tools")]

import lessons  # noqa: E402
import pages  # noqa: E402

SOURCES = ROOT / "build" / "site-sources"
SITE = ROOT / "build" / "site"
DOCTREES = ROOT / "build" / "site-doctrees"  # Sphinx's own, and nothing to publish
ANCHORS = HERE / "anchors.txt"
POSTER = "02-what-stops-what.svg", "what_stops_what.svg"
MOST_BYTES = 25_000_000
LABEL = re.compile(r'<a id=\\?"([^"\\]+)\\?"></a>')
CELL = re.compile(r'id="((?:cell|figure)-[^"]+)"')


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def write_sources():
    shutil.rmtree(SOURCES, ignore_errors=True)
    (SOURCES / "figures").mkdir(parents=True)
    converter = lessons.Converter(SOURCES / "figures")
    for file in lessons.all_notebooks():
        text, held = converter.convert(file)
        write(SOURCES / f"{lessons.page(file)}.ipynb", json.dumps(text))
        if held["models"]:
            write(SOURCES / "explorers" / f"{lessons.page(file)}.json", json.dumps(held))
    for file in sorted((ROOT / "data").rglob("README.md")):
        path = file.relative_to(ROOT).as_posix()
        write(SOURCES / path, lessons.relinked(file.read_text(encoding="utf-8"), path))
    start = (SOURCES / "explorers" / "00_start_here.json").read_text(encoding="utf-8")
    write(SOURCES / "explorers" / "index.json", start)
    for name, text in pages.all_pages(toggle=next(iter(json.loads(start)["models"]))).items():
        write(SOURCES / name, text)


def build():
    shutil.rmtree(SITE, ignore_errors=True)
    shutil.rmtree(DOCTREES, ignore_errors=True)
    options = ["-b", "html", "-q", "-W", "--keep-going", "-c", str(HERE), "-d", str(DOCTREES)]
    if status := sphinx([*options, str(SOURCES), str(SITE)]):
        sys.exit(status)
    shutil.copytree(SOURCES / "figures", SITE / "figures")
    shutil.copy(SITE / "figures" / POSTER[0], SITE / "figures" / POSTER[1])
    for file in lessons.all_notebooks():  # what the page's download button offers
        write(SITE / "_sources" / f"{lessons.page(file)}.ipynb", lessons.without_outputs(file))
    (SITE / ".nojekyll").touch()  # GitHub Pages would leave out what begins with an underscore


def anchors():
    """All addresses that others may link to: of sections, cells, figures, and their files."""
    found = {f"figures/{file.name}" for file in (SITE / "figures").iterdir()}
    for source in SOURCES.rglob("*"):
        if source.suffix in (".md", ".ipynb"):
            page = source.relative_to(SOURCES).with_suffix(".html").as_posix()
            labels = LABEL.findall(source.read_text(encoding="utf-8"))
            labels += CELL.findall((SITE / page).read_text(encoding="utf-8"))
            found |= {page} | {f"{page}#{label}" for label in labels}
    return found


def main(keep_anchors=False):
    write_sources()
    build()
    if keep_anchors:
        known = ANCHORS.read_text(encoding="utf-8").splitlines() if ANCHORS.exists() else []
        write(ANCHORS, "\n".join([*known, *sorted(anchors() - {*known}), ""]))
    size = sum(file.stat().st_size for file in SITE.rglob("*") if file.is_file())
    print(f"wrote {SITE.relative_to(ROOT)}: {size / 1e6:.1f} MB")
    if size > MOST_BYTES:
        sys.exit(f"That is more than {MOST_BYTES / 1e6:.0f} MB.")


if __name__ == "__main__":
    main("--anchors" in sys.argv[1:])
