"""Print the lines of the project by room and language: python tools/size.py"""

from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LANGUAGES = {".py": "Python", ".yaml": "YAML", ".js": "JavaScript", ".css": "CSS"}
ROOMS = ("helpers/course", "helpers", "tests", "benchmarks", "tools", "data", "notebooks")


def lines(path: Path) -> int:
    """How many lines a text file has."""
    return len(path.read_text(encoding="utf-8").splitlines())


def sources(folder: str) -> list[Path]:
    """The files below a folder of the project that are written in one of LANGUAGES."""
    files = (ROOT / folder).rglob("*")
    return sorted(file for file in files if file.suffix in LANGUAGES and file.is_file())


def by_room() -> dict[str, Counter[str]]:
    """Room → language → lines; a file counts in the first of ROOMS that holds it."""
    rooms: dict[str, Counter[str]] = {}
    counted: set[Path] = set()
    for room in ROOMS:
        files = [file for file in sources(room) if file not in counted]
        counted.update(files)
        rooms[room] = Counter()
        for file in files:
            rooms[room][LANGUAGES[file.suffix]] += lines(file)
    return rooms


def main() -> None:
    columns = list(LANGUAGES.values())
    print(f"{'':16}", *(f"{column:>10}" for column in (*columns, "all")))
    for room, languages in by_room().items():
        name = "helpers, rest" if room == "helpers" else room
        numbers = (*(languages[column] for column in columns), languages.total())
        print(f"{name:16}", *(f"{number:10,}" for number in numbers))


if __name__ == "__main__":
    main()
