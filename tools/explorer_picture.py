"""Take the README's picture of the NormExplorer out of the exported notebook that shows it.

python tools/explorer_picture.py

Run it after `make notebooks` changed the explorer. Needs Chromium, as the browser tests do.
"""

import io
import sys
import tempfile
from pathlib import Path

from export import NOTEBOOKS, ROOT, page
from PIL import Image

sys.path.insert(0, str(ROOT / "tests" / "browser"))
import lab  # noqa: E402

PICTURE = ROOT / "docs" / "explorer.png"
NOTEBOOK = NOTEBOOKS / "01_two_backbones.ipynb"
# Without what needs Python, which is greyed out in an exported page.
CROP = """
.explorer { width: 800px; padding: 8px; }
.explorer > .panels ~ * { display: none; }
"""


def taken() -> Image.Image:
    with tempfile.TemporaryDirectory() as folder, lab.headless() as browser:
        file = Path(folder, "page.html")
        file.write_text(page(NOTEBOOK), encoding="utf-8")
        with lab.clean_page(browser, file.as_uri(), device_scale_factor=2) as tab:
            tab.add_style_tag(content=CROP)
            explorer = tab.locator(".explorer")
            explorer.get_by_label("B: layer4").select_option("running statistics")
            tab.mouse.move(0, 0)
            return Image.open(io.BytesIO(explorer.screenshot()))


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    taken().convert("RGB").quantize(256, kmeans=1).save(PICTURE, optimize=True)
    print(f"wrote {PICTURE.relative_to(ROOT)}")
