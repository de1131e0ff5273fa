"""Write .binder/requirements.txt, the exact versions that Binder installs, from constraints.txt.

python tools/binder_lock.py    what `make binder-lock` runs
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ".binder/requirements.txt"
HEADER = """\
# The exact versions that Binder installs: those of constraints.txt that the course needs, with CPU
# builds of torch. Made by `make binder-lock`, and held to constraints.txt by tests/test_setup.py.
--extra-index-url https://download.pytorch.org/whl/cpu
"""
CPU_BUILDS = {"torch", "torchvision"}

# Of constraints.txt, what the course does not need: 250 MB of the image.
TESTS = """
accessible-pygments alabaster click coverage docutils execnet greenlet hf-xet httpcore2 httpx2
huggingface_hub imagesize importlib_metadata iniconfig jupyter-cache lazy-importer markdown-it-py
mdit-py-plugins mdurl myst-nb myst-parser nbval oxfmt oxlint playwright pluggy pycocotools
pydata-sphinx-theme pytest pytest-xdist roman-numerals ruff safetensors snowballstemmer Sphinx
sphinx-book-theme sphinx-copybutton sphinxcontrib-applehelp sphinxcontrib-devhelp
sphinxcontrib-htmlhelp sphinxcontrib-jsmath sphinxcontrib-qthelp sphinxcontrib-serializinghtml
SQLAlchemy tabulate timm truststore zipp
""".split()


def pins(text: str) -> list[str]:
    """The `name==version` lines that the lock has for these of constraints.txt, or has already."""
    lines = [line.partition("==") for line in text.splitlines() if not line.startswith(("#", "-"))]
    return [
        f"{name}=={version.removesuffix('+cpu')}{'+cpu' if name in CPU_BUILDS else ''}"
        for name, _, version in lines
        if version and name not in TESTS
    ]


def lock(constraints: str) -> str:
    """The text of the lock for the text of constraints.txt."""
    return HEADER + "\n".join(pins(constraints)) + "\n"


if __name__ == "__main__":
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    (ROOT / LOCK).write_text(lock(constraints), encoding="utf-8")
