"""What the README promises: its picture, its links, its example."""

import importlib.util
import re

from helpers import DATA

ROOT = DATA.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

spec = importlib.util.spec_from_file_location("readme_picture", ROOT / "tools/readme_picture.py")
readme_picture = importlib.util.module_from_spec(spec)
spec.loader.exec_module(readme_picture)


def test_the_picture_is_the_notebooks():
    assert readme_picture.PICTURE.read_bytes() == readme_picture.from_notebook()
    assert f"({readme_picture.PICTURE.relative_to(ROOT).as_posix()})" in README


def test_links_lead_to_files():
    without_code = re.sub(r"`[^`]*`", "", README)
    for target in re.findall(r"\]\(([^)#]+)\)", without_code):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_the_example_runs():
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    *lines, last = example.strip().splitlines()
    names = {}
    exec("\n".join(lines), names)
    rows = eval(last, names)
    assert rows["layer4"].max_abs > 0
