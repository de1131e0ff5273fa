"""Copy the README's picture out of the notebook that shows it.

python tools/readme_picture.py

Run it after `make notebooks` changed that figure; a test holds the two to the same bytes.
"""

import base64
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "two_backbones.png"
NOTEBOOK, CELL = ROOT / "notebooks" / "01_two_backbones.ipynb", "assertion"


def from_notebook() -> bytes:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    (cell,) = (cell for cell in cells if cell["id"] == CELL)
    (png,) = (o["data"]["image/png"] for o in cell["outputs"] if "image/png" in o.get("data", {}))
    return base64.b64decode(png)


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_bytes(from_notebook())
    print(f"wrote {PICTURE.relative_to(ROOT)}")
