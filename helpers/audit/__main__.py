"""`python -m helpers.audit`: the audit of torchvision's builders on the command line."""

import argparse
import json
import sys
from dataclasses import replace

import torchvision

from helpers.audit.census import detection_builders
from helpers.audit.traps import _wrapped, audit_builder


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m helpers.audit",
        description="The normalization layers of torchvision's builders, and the traps they are "
        "in. Nothing is downloaded: the models hold no values.",
        epilog="Exit status: 0 nothing found, 1 something found, 2 an unknown name.",
    )
    parser.add_argument(
        "builder", nargs="*", help="a name in torchvision.models.list_models(); default: detection"
    )
    parser.add_argument(
        "--weights",
        default="pretrained",
        help="what the model is wired for: pretrained (its backbone, or all of a classifier; this "
        "is the default), default (the builder called without arguments), none, coco, or the name "
        "of its weights, such as COCO_LEGACY",
    )
    parser.add_argument("--batch-size", type=int, help="images per forward pass, if known")
    parser.add_argument("--json", action="store_true", help="print JSON, layer by layer")
    options = parser.parse_args(arguments)
    names = options.builder or detection_builders()
    try:
        found = {name: audit_builder(name, options.weights, options.batch_size) for name in names}
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        models = {name: one.to_dict() for name, one in found.items()}
        facts = {"torchvision": torchvision.__version__.partition("+")[0], "models": models}
        print(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        notes = dict.fromkeys(note for one in found.values() for note in one.notes)
        parts = [repr(replace(one, notes=())) for one in found.values()]
        print("\n\n".join([*parts, *("\n".join(_wrapped(f"Note: {note}")) for note in notes)]))
    return 1 if any(one.findings for one in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
