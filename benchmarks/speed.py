"""The files that store what normalization and NMS cost, one for each device.

    python -m benchmarks.speed FILE OTHER

counts how many ratios of one file agree with those of another within the stated spreads.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch
import torchvision

# What tells rows of a case apart.
WITHIN = ("what", "way", "candidates", "classes", "model", "part")
NAMES = (*WITHIN, "level", "shape", "batch", "dtype", "pass", "cudnn", "proposals")
MEASURED = ("ms", "ratio", "share", "rpn_ms", "heads_ms", "unwaited")
MEASURED += ("bandwidth", "copy_bandwidth", "peak")

FOLDER = Path(__file__).resolve().parent.parent / "data" / "results" / "speed"


def arguments(description: str, given: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line that the benchmarks share; `out` is always set."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="few cases, few rounds: to try it")
    parser.add_argument("--out", type=Path, help="the file to write (default: the device's own)")
    parser.add_argument("--resume", action="store_true", help="keep the cases that it holds")
    parser.add_argument("--again", action="store_true", help="one more run, of all that it holds")
    options = parser.parse_args(given)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here.")
    options.out = options.out or FOLDER / f"{slug(device_name(options.device))}.json"
    return options


def device_name(device: str) -> str:
    """Name the GPU or the processor."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    names = []
    if Path("/proc/cpuinfo").exists():
        names = re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    elif sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        names = [subprocess.run(command, capture_output=True, text=True).stdout.strip()]
    return names[0] if names and names[0] else platform.processor() or platform.machine()


def slug(name: str) -> str:
    """Turn a device's name into that of a file."""
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\(.*?\)|@.*", "", name.lower())).strip("-")


def about(device: str) -> dict[str, object]:
    """Describe the device and the versions of what ran on it."""
    facts = {
        "device": device_name(device),
        "kind": device,
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "torch": re.sub(r"\+.*", "", torch.__version__),
        "torchvision": re.sub(r"\+.*", "", torchvision.__version__),
        "threads": torch.get_num_threads(),
    }
    if device == "cuda":
        facts["cuda"] = torch.version.cuda
        facts["cudnn"] = torch.backends.cudnn.version()
        facts["tf32"] = torch.backends.cudnn.allow_tf32
    return facts


class Store:
    """Keep the rows of one section in a device's file, written whole after each case.

    The values at `keys` name a case; those at WITHIN tell its rows apart. Cases that the file holds
    are kept with `resume`, combined with one more run with `again`, and else replaced.
    """

    def __init__(self, options: argparse.Namespace, section: str, keys: tuple[str, ...]):
        self._path, self._section, self._keys = options.out, section, keys
        self._held = json.loads(self._path.read_text()) if self._path.exists() else {}
        self._held |= {"about": about(options.device)}
        held = self._held.get(section, [])
        self._resume, self._before = options.resume, held if options.again else []
        self.rows = list(held) if options.resume else []

    def has(self, **case) -> bool:
        """Tell whether a case need not be measured."""
        return self._resume and any(self._key(case) == self._key(row) for row in self.rows)

    def _key(self, row: dict, more: tuple[str, ...] = ()) -> tuple:
        return tuple(str(row.get(key)) for key in (*self._keys, *more))

    def add(self, rows: list[dict]) -> None:
        """Add the rows of a case and write the file."""
        before = {self._key(row, WITHIN): row for row in self._before}
        for row in rows:
            held = before.get(self._key(row, WITHIN))
            self.rows.append(resolved(combined(held, row) if held else row))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_suffix(".part")
        part.write_text(_text(self._held | {self._section: self.rows}))
        os.replace(part, self._path)


def combined(a: dict, b: dict) -> dict:
    """Combine two runs of a row: the means of what was measured, a spread that covers both."""
    if "spread" not in a or "spread" not in b:
        return b
    runs = a.get("runs", 1)
    row = dict(b) | {"runs": runs + 1}
    for name in MEASURED:
        if name in a and name in b:
            row[name] = rounded((runs * a[name] + b[name]) / (runs + 1))
    value = "ratio" if "ratio" in row else "share"
    row["spread"] = max(a["spread"], b["spread"], rounded(abs(a[value] - b[value])))
    return row


def resolved(row: dict) -> dict:
    """Add to a row with a ratio whether the effect exceeds the spread, both as stored.

    It never does for a ratio over itself, which is 1 with a spread of 0.
    """
    return row | {"is_resolved": abs(row["ratio"] - 1) > row["spread"]} if "ratio" in row else row


def agreement(a: dict, b: dict) -> dict[str, tuple[int, int]]:
    """Count for each section how many ratios of two files agree, and of how many.

    They agree if they differ by no more than the larger of their spreads.
    """
    counts = {}
    for section in ("norms", "nms", "heads"):
        rows = {
            _name(row): row for row in b.get(section, []) if "ratio" in row and row["spread"] > 0
        }
        pairs = [(row, rows[_name(row)]) for row in a.get(section, []) if _name(row) in rows]
        agree = sum(abs(x["ratio"] - y["ratio"]) <= max(x["spread"], y["spread"]) for x, y in pairs)
        counts[section] = agree, len(pairs)
    return counts


def _name(row: dict) -> str:
    return str([(key, row.get(key)) for key in sorted(NAMES)])


def _text(whole: dict) -> str:
    """Write the file's text, with one line for each row."""
    parts = [f'"about": {json.dumps(whole["about"], ensure_ascii=False)}']
    for section, rows in whole.items():
        if section != "about":
            lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
            parts.append(f'"{section}": [\n{lines}\n]')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def rounded(value: float) -> float:
    """Round to four significant digits."""
    return float(f"{value:.4g}")


def main() -> int:
    """Compare two files."""
    files = [json.loads(Path(name).read_text()) for name in sys.argv[1:3]]
    if len(files) != 2:
        raise SystemExit("python -m benchmarks.speed FILE OTHER: give two files of one device.")
    for section, (agree, of) in agreement(*files).items():
        print(f"{section}: {agree} of {of} ratios agree within their spread")
    return 0


if __name__ == "__main__":
    sys.exit(main())
