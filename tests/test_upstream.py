"""What docs/upstream/ reports to other projects is still so."""

import subprocess
import sys

from helpers import DATA

REPORT = DATA.parent / "docs" / "upstream" / "mobilenet_v3_eps.md"


def test_the_script_prints_what_the_report_says():
    script = REPORT.with_suffix(".py")
    printed = subprocess.check_output([sys.executable, script], text=True)
    text = REPORT.read_text("utf-8")
    assert f"```\n{printed}```" in text and f"```python\n{script.read_text('utf-8')}```" in text
