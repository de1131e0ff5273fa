"""What an audit says: the layers and what they do, the findings; printed, shown, or as a dict."""

import json
import textwrap
import tomllib
from collections import Counter
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from helpers.text import Table, short, table

TEXTS = tomllib.loads(Path(__file__).with_name("findings.toml").read_text(encoding="utf-8"))
NOTES = TEXTS.pop("notes")
NAMED = 2  # of a finding's layers, so many names; .layers has all of them
COLUMNS = ("layers", "class", "eps", "statistics move", "mixes images", "affine trains")
COLUMNS += ("of float16", "smallest variance")
WORDS = {True: "yes", False: "no", None: "–"}
SHOWN = "<strong>{}:</strong> {}<br>{}<br><em>What to do:</em> {}"


@dataclass(frozen=True)
class Layer:
    """A normalization layer and what it does; None stands for what it lacks or nothing tells.

    `eps` is solved from outputs if `eps_measured`, else told; `statistics_move` and `mixes_images`
    hold in the mode it is in; `trainable`: an affine parameter gets a gradient; `dtype`: what comes
    out of float16; the variance is a running one; `untried`: why it could not be run, if so.
    """

    name: str
    class_name: str
    channels: int | None
    eps: float | None
    trainable: bool | None
    smallest_variance: float | None
    eps_measured: bool
    statistics_move: bool | None
    mixes_images: bool | None
    dtype: str | None
    untried: str


@dataclass(frozen=True)
class Finding:
    """A trap: `code` names it, `layers` (their names) are in it."""

    code: str
    layers: tuple[str, ...]
    meaning: str
    advice: str

    @property
    def subject(self) -> str:
        """How many layers, with the names of the first ones."""
        named = ", ".join(name or "the model" for name in self.layers[:NAMED])
        more = ", …" if len(self.layers) > NAMED else ""
        return f"{len(self.layers)} layer{'s' * (len(self.layers) != 1)} ({named}{more})"


@dataclass(frozen=True, repr=False)
class Audit:
    """What `audit` found; prints and shows as a table of the layers, and the findings.

    `model` and `recipe`: names, the latter of what eps was compared with. `notes`: sentences.
    """

    model: str
    layers: tuple[Layer, ...]
    findings: tuple[Finding, ...]
    recipe: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        """One sentence: the layers by class and eps, the findings, what eps was compared with."""
        kinds = Counter(
            x.class_name + ("" if x.eps is None else f", eps {short(x.eps)}") for x in self.layers
        )
        layers = "; ".join(f"{number} {kind}" for kind, number in kinds.items())
        number = len(self.findings)
        compared = f", eps compared with {self.recipe}" if self.recipe else ""
        found = f"{number or 'No'} finding{'s' * (number != 1)}{compared}"
        return f"{self.model}: {layers or 'no normalization layers'}. {found}."

    def table(self) -> Table:
        """What stops what: a row per layer, equal rows folded into one."""
        rows: dict[tuple[str, ...], list[Layer]] = {}
        for x in self.layers:
            told = "" if x.eps_measured or x.eps is None else " (told)"
            does = (WORDS[fact] for fact in (x.statistics_move, x.mixes_images, x.trainable))
            row = x.class_name, _cell(x.eps) + told, *does, x.dtype or "–"
            rows.setdefault(row, []).append(x)
        lines = []
        for row, layers in rows.items():
            more = f" and {len(layers) - 1} more" if len(layers) > 1 else ""
            variances = [x.smallest_variance for x in layers if x.smallest_variance is not None]
            smallest = min(variances, key=lambda v: (v == v, v), default=None)  # nan before all
            lines.append(((layers[0].name or "the model") + more, *row, _cell(smallest)))
        return table(lines, COLUMNS)

    def to_dict(self) -> dict[str, Any]:
        """All of it in lists, dicts, strings and numbers; a number that is not finite is None."""
        return json.loads(json.dumps(asdict(self)), parse_constant=lambda _: None)

    def __repr__(self) -> str:
        parts = [_wrapped(self.headline)] + [repr(self.table())] * bool(self.layers)
        for finding in self.findings:
            lines = (f"{finding.code}: {finding.subject}", finding.meaning, f"→ {finding.advice}")
            parts.append("\n".join(map(_wrapped, lines, ("", "  ", "  "))))
        return "\n\n".join([*parts, *(_wrapped(f"Note: {note}") for note in self.notes)])

    def _repr_html_(self) -> str:
        color = "warn" if self.findings else "success"
        parts = [f"<strong>{escape(self.headline)}</strong>"]
        parts += [self.table()._repr_html_()] if self.layers else []
        for finding in self.findings:
            said = finding.code, finding.subject, finding.meaning, finding.advice
            parts.append(SHOWN.format(*map(escape, said)))
        parts += [f"<em>Note:</em> {escape(note)}" for note in self.notes]
        style = f"border-left: 4px solid var(--jp-{color}-color1, currentColor); padding: 2px 0.8em"
        return f'<div style="{style}">' + "".join(f"<div>{part}</div>" for part in parts) + "</div>"


def _cell(number: float | None) -> str:
    return "–" if number is None else short(number)


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 100, initial_indent=indent, subsequent_indent=indent)
