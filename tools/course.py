"""The course on Linux, macOS and Windows: python tools/course.py COMMAND (`make COMMAND` calls it).

make lab           set up .venv and start JupyterLab   ARGS="--no-browser --port 9000" are passed on
make test          ruff, the tests, every notebook run again   ARGS=tests/test_norms.py: only that
make test-all      also all of the model zoo, all mutations, the notebooks on other processor paths
make check         is everything in place? a line each, with the mend; needs no network
make packages      install again what pyproject.toml and constraints.txt ask for
make export        a notebook as one HTML page that needs no network   NOTEBOOK=01_two_backbones
make site          the course as a web site, into build/site
make workshop      notebooks to hand out in a class, into build/workshop
make notebooks     execute and normalize the notebooks: the only maker of reference outputs
make weights       fetch the ImageNet weights (the one thing that needs a download)
make real-weights  measure eps against rounding on weights really trained (downloads 280 MB)
make bench         the benchmarks
make speed         what normalization and NMS cost here, into data/results/speed   DEVICE=cuda
make constraints   write the versions that the tests have just passed with into constraints.txt

PYTHON=python3.12 chooses the interpreter of .venv. TORCH=cpu takes PyTorch's CPU wheels, TORCH=pypi
those of PyPI; TORCH=auto, the default, takes the CPU wheels on Linux where their index answers.
ARGS=--here takes the Python that runs this, such as conda's, in place of .venv.
Without make: python tools/course.py lab TORCH=cpu --no-browser
"""
# Python 3.6 can parse this file, so that an old Python is told what is missing.

import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import urllib.request
from pathlib import Path

from sound import RUNTIME, about, kept_torch, state, too_old

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
TORCH = ("auto", "cpu", "pypi")
EXTRAS = {"lab": "[course]", "test": "[course,test]"}
CONFIG = {  # Jupyter's two files, and where an environment has them
    "overrides.json": "share/jupyter/lab/settings",
    "jupyter_server_config.py": "etc/jupyter",
}
WINDOWS = os.name == "nt"
AGAIN = r"`py tools\course.py {}`" if WINDOWS else "`make {}`"

# Commands that run one thing: the packages that they need, and what Python runs.
RUNS = {
    "site": ("test", ["site/make.py"]),
    "workshop": ("test", ["workshop/make.py"]),
    "notebooks": ("test", ["notebooks/make.py"]),
    "weights": ("lab", ["-m", "helpers.networks.backbones"]),
    "real-weights": ("lab", ["-m", "data.results.real_weights.make"]),
    "bench": ("test", ["-m", "benchmarks"]),
}
# One thread and the stand-in weights, so that every machine computes the same.
FIXED = {"OMP_NUM_THREADS": "1", "HELPERS_WEIGHTS": "stand-in"}
PATHS = [
    {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    {"OMP_NUM_THREADS": "2"},
]
SPREAD = "-n auto --maxprocesses 4 --dist".split()
NBVAL = (
    "--nbval --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg "
    "--nbval-cell-timeout=120"
).split() + [*SPREAD, "loadscope", "notebooks"]


def notebooks():
    """Every notebook, the lessons first, relative to the root."""
    found = sorted(ROOT.glob("notebooks/*.ipynb")) + sorted(ROOT.glob("notebooks/deeper/*.ipynb"))
    return [path.relative_to(ROOT).as_posix() for path in found]


# ---------------------------------------------------------------- .venv: whole, or mended, or made


def answers(url, seconds=5):
    """Tell whether the web server of `url` answers in time, however slow the name's lookup is."""
    answer = []

    def ask():
        try:
            with urllib.request.urlopen(url, timeout=seconds):
                answer.append(True)
        except (OSError, ValueError):
            pass

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(answer)


def decided(torch):
    """TORCH=auto as one of the others: the CPU wheels on Linux where their index answers."""
    if torch != "auto":
        return torch
    linux = sys.platform.startswith("linux")
    return "cpu" if linux and answers(TORCH_INDEX + "/torch/") else "pypi"


class Course:
    """A call: its settings (as make's), its further words, and the Python that it works with."""

    def __init__(self, words, environment):
        names = ("PYTHON", "TORCH", "NOTEBOOK", "DEVICE", "ARGS")
        self.settings = {name: environment[name] for name in names if environment.get(name)}
        self.words = []
        for word in words:
            name, equal, value = word.partition("=")
            if equal and name in names:
                self.settings[name] = value
            else:
                self.words.append(word)
        args = self.settings.get("ARGS", "")
        self.words = shlex.split(args.replace("\\", "/") if WINDOWS else args) + self.words
        self.torch = self.settings.get("TORCH", "auto")
        if self.torch not in TORCH:
            choices = "auto, cpu (PyTorch's CPU wheels) or pypi"
            raise SystemExit(f"TORCH is {choices}, not {self.torch}.")
        self.here = "--here" in self.words
        self.words = [word for word in self.words if word != "--here"]
        self.prefix = Path(sys.prefix) if self.here else VENV
        self.scripts = VENV / ("Scripts" if WINDOWS else "bin")
        self.python = self.scripts / ("python.exe" if WINDOWS else "python")
        if self.here:
            self.scripts, self.python = Path(sysconfig.get_path("scripts")), Path(sys.executable)

    def run(self, tool, *words, **env):
        """Run a tool of the environment; stop, with a sentence and its status, where it fails."""
        program = shutil.which(str(tool), path=str(self.scripts))
        if program is None:
            raise SystemExit(f"{tool} is missing: {AGAIN.format('packages')} installs it.")
        env = {**os.environ, "PYTHONUTF8": "1", **env}
        env["PATH"] = str(self.scripts) + os.pathsep + env.get("PATH", "")
        words = [str(word) for word in words]
        pressed = []  # Ctrl-C is for the tool first
        handler = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
        status = subprocess.call([program, *words], cwd=str(ROOT), env=env)
        signal.signal(signal.SIGINT, handler)
        if status and pressed:
            raise KeyboardInterrupt
        if status:
            shown = " ".join([Path(program).stem, *words[:3]])
            print(f"It stopped at `{shown}`, which says why above.", file=sys.stderr)
            raise SystemExit(abs(status))

    # ------------------------------------------------------------ setting up

    def environment(self):
        """Keep .venv where it is whole, mend it where an install was interrupted, or make it."""
        chosen = self.settings.get("PYTHON")
        maker = chosen or getattr(sys, "_base_executable", sys.executable)
        version = about(maker)[0] if chosen else None
        if chosen and too_old(version, chosen):
            raise SystemExit(too_old(version, chosen))
        why, broken = state(VENV, self.python, self.torch, version)
        if why:
            print(f"Making .venv with {maker}: {why}.", flush=True)
            again = self.torch == "auto" and (VENV / "torch").exists()
            torch = kept_torch(VENV) if again else decided(self.torch)
            if subprocess.call([maker, "-m", "venv", "--clear", str(VENV)]):
                raise SystemExit(
                    "Python cannot make .venv: close what uses it, and on Debian or Ubuntu "
                    "`sudo apt install python3-venv` first."
                )
            (VENV / "torch").write_text(torch + "\n")
        for path, what in broken.items():
            print(f"Mending .venv: {what}.", flush=True)
            self.forget()
            try:
                shutil.rmtree(str(path)) if path.is_dir() else path.unlink()
            except OSError:
                raise SystemExit(
                    f"{path.name} is in use: close JupyterLab and what else uses .venv first."
                ) from None

    def forget(self):
        """Have the next `packages` install again."""
        for done in self.prefix.glob("*.ok"):
            done.unlink()

    def packages(self, kind):
        """Install what `kind` ("lab", "test") needs, unless that is done since its lists changed.

        torch and torchvision come from one index in one call: from two, they fail at import.
        """
        if not self.here:
            self.environment()
        lists = [(ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
        stamp = hashlib.sha256(b"".join(lists)).hexdigest()
        lab, done = (self.prefix / (name + ".ok") for name in ("lab", kind))
        if done.exists() and done.read_text() == stamp:
            return
        if not (lab.exists() and lab.read_text() == stamp):  # "test" only adds to "lab"
            self.forget()
        tools = [[self.python, "-m", "pip", "install"]]
        if shutil.which("uv"):  # pip after it: an index may be set up for pip alone
            tools.insert(0, [shutil.which("uv"), "pip", "install", "--python", self.python])
        for tool in tools:
            try:
                if not self.here:  # conda has versions of its own
                    tool += ["-c", "constraints.txt"]
                    if kept_torch(VENV) == "cpu":
                        from_index = ["--no-deps", "--index-url", TORCH_INDEX]
                        self.run(*tool, *from_index, "torch", "torchvision")
                self.run(*tool, "-e", "." + EXTRAS[kind])
                print("Preparing fonts, and trying torch.", flush=True)
                # Built in a notebook, the font cache would announce itself on stderr.
                self.run(self.python, "-c", "import matplotlib.font_manager, torch")
                break
            except SystemExit:
                continue
        else:
            other = " and TORCH=pypi takes other wheels" if kept_torch(self.prefix) == "cpu" else ""
            if WINDOWS:
                other += f"; if torch misses a DLL, install {RUNTIME} first"
            again = AGAIN.format(kind)
            raise SystemExit(f"The installation is not complete: {again} completes it{other}.")
        for name in {"lab", kind}:
            (self.prefix / (name + ".ok")).write_text(stamp)

    def configure(self):
        """Trust the notebooks, so that their outputs show; put Jupyter's two files in place."""
        self.run("jupyter-trust", *notebooks())
        for file, folder in CONFIG.items():
            (self.prefix / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(str(ROOT / "jupyter" / file), str(self.prefix / folder))

    # ------------------------------------------------------------ commands

    def lab(self):
        self.packages("lab")
        self.configure()
        root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        first = "--LabApp.default_url=/lab/tree/" + notebooks()[0]
        self.run("jupyter-lab", first, *root, *self.words)

    def test(self):
        self.packages("test")
        if self.words:
            return self.run("pytest", *self.words, **FIXED)
        explorers = ROOT / "helpers/course/explorers"
        found = [
            *ROOT.glob("site/**/*.js"),
            *ROOT.glob("site/**/*.css"),
            *explorers.glob("*.js"),
            *explorers.glob("*.css"),
        ]
        scripts = [path.relative_to(ROOT).as_posix() for path in sorted(found)]
        self.run("ruff", "check")
        folders = "benchmarks data helpers site tests tools notebooks/make.py".split()
        self.run("ruff", "format", "--check", *folders)
        self.run("oxfmt", "--check", *scripts)
        self.run("oxlint", "--deny-warnings", *scripts)
        self.run("pytest", *SPREAD, "loadfile", "tests", **FIXED)
        self.run("pytest", *NBVAL, **FIXED)

    def test_all(self):
        self.test()
        self.run("pytest", "tests", "-m", "sweep or mutation", **FIXED)
        for path in PATHS:
            self.run("pytest", *NBVAL, **{**FIXED, **path})

    def check(self):
        why, broken = (None, {}) if self.here else state(VENV, self.python)
        if not self.here and not (VENV / "lab.ok").exists():
            why = why or "its installation is not complete"
        for wrong in [why] if why else broken.values():
            print(f"FAIL environment: {wrong}. {AGAIN.format('lab')} mends it.")
            raise SystemExit(1)
        command = [str(self.python), "tools/check.py", *self.words]
        found = subprocess.call(command, cwd=str(ROOT), env={**os.environ, "PYTHONUTF8": "1"})
        raise SystemExit(found)

    def install(self):
        self.forget()
        self.packages("lab")

    def export(self):
        self.packages("lab")
        names = self.words or self.settings.get("NOTEBOOK", "").split()
        self.run(self.python, "tools/export.py", *names or [Path(n).stem for n in notebooks()])

    def speed(self):
        self.packages("lab")
        for name in ("nms", "heads", "norms"):
            device = self.settings.get("DEVICE", "cpu")
            self.run(self.python, "-m", "benchmarks." + name, "--device", device)

    def constraints(self):
        freeze = [str(self.python), "-m", "pip", "freeze", "--all", "--exclude-editable"]
        lines = subprocess.check_output(freeze, universal_newlines=True).splitlines()
        left_out = re.compile(r"(pip|wheel)=|nvidia|cuda|triton")
        pins = [re.sub(r"\+.*", "", line) for line in lines if not left_out.match(line)]
        file = ROOT / "constraints.txt"
        header = [line for line in file.read_text("utf-8").splitlines() if line.startswith("#")]
        file.write_bytes("\n".join(header + pins + [""]).encode("utf-8"))
        self.run(self.python, "tools/binder_lock.py")


def main(words, environment):
    if not words or words[0] in ("help", "--help", "-h"):
        text = __doc__.partition("\n\n")[2]
        if WINDOWS:
            text = text.replace("make ", r"py tools\course.py ").replace("python3.12", "FILE")
        return print(text, end="")
    course = Course(words[1:], environment)
    if words[0] in RUNS:
        kind, command = RUNS[words[0]]
        if command[0] != "-m" and not (ROOT / command[0]).exists():
            raise SystemExit(f"There is no {command[0]} here.")
        course.packages(kind)
        return course.run(course.python, *command, *course.words)
    commands = {"test-all": course.test_all, "packages": course.install}
    for name in ("lab", "test", "check", "export", "speed", "constraints"):
        commands[name] = getattr(course, name)
    if words[0] not in commands:
        known = ", ".join(sorted([*commands, *RUNS]))
        raise SystemExit(f"There is no command {words[0]}: take one of {known}.")
    return commands[words[0]]()


if __name__ == "__main__":
    if too_old(sys.version_info[:2], sys.executable):
        sys.exit(too_old(sys.version_info[:2], sys.executable))
    try:
        main(sys.argv[1:], os.environ)
    except KeyboardInterrupt:
        sys.exit("Interrupted: the same command completes it.")
