"""Run every benchmark in a process of its own, so that none sees what another has cached."""

import subprocess
import sys

NAMES = ("explorer", "scaling", "pyramid", "compare", "notebooks")


def main() -> int:
    """Run them all; return 1 if any fails."""
    runs = [subprocess.run([sys.executable, "-m", f"benchmarks.{name}"]) for name in NAMES]
    return int(any(run.returncode for run in runs))


if __name__ == "__main__":
    sys.exit(main())
