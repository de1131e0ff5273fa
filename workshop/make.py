"""Make build/workshop/: notebooks and questions for a class and for its teacher, and their zips.

    python workshop/make.py             everything; solutions are executed, which takes minutes
    python workshop/make.py --no-run    solutions without outputs

student/ holds no outputs and no solutions. In solutions/ every exercise is solved and every check
says Right. before-and-after-*.txt are the questions that the guides name, and their key.
student.zip holds what students may have, workshop.zip everything; both hold the site where
`python site/make.py` has made build/site. build/workshop is replaced as a whole or not at all.
"""

import argparse
import importlib.util
import re
import sys
import textwrap
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import yaml
from nbclient.exceptions import CellControlSignal, DeadKernelError
from nbconvert.preprocessors import ClearOutputPreprocessor

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "build" / "workshop"
SITE = ROOT / "build" / "site"
SOLUTION = re.compile(
    r"<details><summary>Solution</summary>\n\n```python\n(.*?)```\n\n</details>\n?", re.DOTALL
)

ZIPS = ("student.zip", "workshop.zip")
TEACHERS = ("solutions", "before-and-after-key.txt")  # not for students

# notebooks/make.py, which is a script and in no package
spec = importlib.util.spec_from_file_location("notebooks_make", ROOT / "notebooks" / "make.py")
spec.loader.exec_module(notebooks := importlib.util.module_from_spec(spec))

READ_ME = """\
Two backbones: a workshop on normalization layers in object detectors

student/      the notebooks without outputs and solutions
{solutions}before-and-after-90-minutes.txt, before-and-after-half-day.txt
              a guide's questions, asked before the class and after it
{site}
The notebooks need the course itself, for its folders helpers/ and data/, which are not in here:

1. Clone the course, or copy the cloned folder from your teacher's stick.
2. Copy student/ into the cloned folder, beside notebooks/.
3. In the cloned folder, with Python 3.11 or newer:
       python3 tools/course.py lab      on macOS and Linux
       py tools/course.py lab           on Windows
   The first time this installs Python packages. Without a network, workshop/README.md in the
   cloned folder says how to install them from a stick.
4. In JupyterLab, close the notebook that is open, which shows the outputs, and open
   student/00_start_here.ipynb, or the lesson that your teacher names.
"""
READ_ME_SOLUTIONS = """\
solutions/    the same notebooks with every exercise solved{outputs}
before-and-after-key.txt
              the answers to the questions, for the teacher
"""
READ_ME_SITE = """\
site/         the course as web pages: open site/index.html in a browser

The pages need no installation and no network. They show every output, and hints and solutions
folded away.
"""


def student(nb):
    """A copy of a notebook without outputs, explorers' state and solutions."""
    nb, _ = ClearOutputPreprocessor().preprocess(notebooks.normalize(nb), {})
    nb.metadata.pop("widgets", None)
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = SOLUTION.sub("", cell.source).strip("\n")
    return nb


def right_attempts(nb):
    """Cell id → the cell's source with the notebook's solution in place of the attempt.

    Raises ValueError where the notebook has not one solution for each check.
    """
    texts = [cell.source for cell in nb.cells if cell.cell_type == "markdown"]
    solutions = [code for text in texts for code in SOLUTION.findall(text)]
    calls = {cell.id: cell.source.split("\n")[-1] for cell in nb.cells if cell.cell_type == "code"}
    checks = {key: call for key, call in calls.items() if call.startswith("check(")}
    pairs = zip(solutions, checks.items(), strict=True)
    return {key: f"{code.rstrip()}\n\n\n{call}" for code, (key, call) in pairs}


def solved(nb):
    """A copy of the student's notebook with the right attempts in it, without outputs."""
    attempts = right_attempts(nb)
    nb = student(nb)
    for cell in nb.cells:
        cell.source = attempts.get(cell.id, cell.source)
    return nb


def executed(nb):
    """The solved notebook with its outputs. Raises ValueError if a check does not say Right."""
    attempts = right_attempts(nb)
    if not attempts:
        return nb  # nothing in it is solved, so its stored outputs are those of this run, too
    nb = notebooks.execute(solved(nb))
    problems = list(notebooks.faults(nb))
    for cell in nb.cells:
        if cell.id in attempts:
            verdict = cell.outputs[-1].data["text/plain"] if cell.outputs else "nothing"
            if not verdict.startswith("Right: "):
                problems.append(f"The check in cell {cell.id} says: {verdict}")
    if problems:
        raise ValueError("\n".join(problems))
    return nb


def before_and_after():
    """File name → text: the transfer questions that each guide names, and one key for all."""
    questions = yaml.safe_load((ROOT / "workshop" / "transfer.yaml").read_text("utf-8"))
    files, key = {}, ["Answers to the questions before and after. For the teacher."]
    for guide in sorted((ROOT / "workshop").glob("guide-*.md")):
        name = guide.stem.removeprefix("guide-")
        sheet = ["Name:" + " " * 34 + "[ ] before   [ ] after"]
        key.append(name.replace("-", " ").upper())
        asked = re.findall(r"(\d) of `(\d\d_\w+)`", guide.read_text("utf-8"))
        for place, (number, lesson) in enumerate(asked, 1):
            item = questions[lesson][int(number) - 1]
            question = textwrap.fill(f"{place}. {item['question'].strip()}", 80)
            sheet += [question, "Answer:" + "\n" * 5]
            answer = textwrap.fill(item["answer"].strip(), 80)
            key += [f"{question}\n({lesson}, question {number})", answer]
        files[f"before-and-after-{name}.txt"] = "\n\n".join(sheet)
    return files | {"before-and-after-key.txt": "\n\n".join(key) + "\n"}


def write_zip(target, files):
    """Write a zip of {name in it: a file's path, or a text}."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, file in sorted(files.items()):
            if isinstance(file, str):
                archive.writestr(str(name), file)
            else:
                archive.write(file, name)


def fill(folder, run):
    """Write the notebooks, the questions, READ ME FIRST.txt and the zips into an empty folder."""
    for path in notebooks.every():
        nb = notebooks.loads(path.read_text(encoding="utf-8"))
        try:
            made = {"student": student(nb), "solutions": executed(nb) if run else solved(nb)}
        except (CellControlSignal, DeadKernelError, ValueError) as error:
            raise SystemExit(f"{path.name}: {error}\nbuild/workshop is left as it was.") from None
        for kind, notebook in made.items():
            nbformat.validate(notebook)
            file = folder / kind / path.relative_to(notebooks.NOTEBOOKS)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(notebooks.dumps(notebook), encoding="utf-8", newline="\n")
        print(f"{path.stem}: exercises solved: {len(right_attempts(nb))}")
    site = SITE.is_dir()
    if not site:
        print("Without the site, which is not made: python site/make.py, and then this again.")
    for name, text in before_and_after().items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    files = {file.relative_to(folder): file for file in folder.rglob("*")}
    files |= {"site" / file.relative_to(SITE): file for file in SITE.rglob("*")}
    solutions = READ_ME_SOLUTIONS.format(outputs=" and every output" if run else "")
    to, of_site = "READ ME FIRST.txt", READ_ME_SITE if site else ""
    students = {name: file for name, file in files.items() if name.parts[0] not in TEACHERS}
    students[Path(to)] = READ_ME.format(solutions="", site=of_site)
    files[Path(to)] = READ_ME.format(solutions=solutions, site=of_site)
    (folder / to).write_text(files[Path(to)], encoding="utf-8")
    write_zip(folder / "student.zip", students)
    write_zip(folder / "workshop.zip", files)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--no-run", action="store_true", help="do not execute the solutions")
    options = parser.parse_args(arguments)
    TARGET.parent.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=TARGET.parent, prefix="workshop-") as temporary:
        new = Path(temporary, "new")
        new.mkdir()
        fill(new, run=not options.no_run)
        try:
            if TARGET.exists():
                TARGET.rename(Path(temporary, "old"))
            new.rename(TARGET)
        except PermissionError:  # on Windows
            raise SystemExit(f"{TARGET} is in use: close what shows it, then again.") from None
    sizes = (f"{name} has {(TARGET / name).stat().st_size / 1e6:.1f} MB" for name in ZIPS)
    print(f"wrote {TARGET}: {', '.join(sizes)}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("Stopped. build/workshop is left as it was.", file=sys.stderr)
        sys.exit(130)
