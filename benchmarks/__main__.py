"""Every benchmark, each in a process of its own: none sees what another has loaded or cached."""

import subprocess
import sys

NAMES = ("explorer", "scaling", "pyramid", "stored", "compare", "notebooks")


def main() -> int:
    runs = [subprocess.run([sys.executable, "-m", f"benchmarks.{name}"]) for name in NAMES]
    return int(any(run.returncode for run in runs))


if __name__ == "__main__":
    sys.exit(main())
