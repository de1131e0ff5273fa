"""The audit on the command line: python -m helpers.audit fasterrcnn_resnet50_fpn"""

import argparse
import json
import pkgutil
import signal
import sys

from torchvision.models import detection, list_models

from helpers.audit import Audit, audit, audit_builder


def _audited(name: str, weights: str, batch_size: int | None) -> Audit:
    """Audit a torchvision builder, or what the function `package.module:function` returns."""
    if ":" not in name:
        return audit_builder(name, weights, batch_size)
    try:
        model = pkgutil.resolve_name(name)()
    except Exception as error:  # the function is not ours
        raise ValueError(f"{name} leads to no model: {type(error).__name__}, {error}") from None
    return audit(model, batch_size=batch_size)


def main(arguments: list[str] | None = None) -> int:
    """Print the audits; the exit status: 0 nothing found, 1 something found, 2 not understood."""
    parser = argparse.ArgumentParser(prog="python -m helpers.audit", epilog=main.__doc__)
    names = "names in torchvision.models.list_models(), or package.module:function"
    parser.add_argument("model", nargs="*", help=f"{names}; default: all detection builders")
    wiring = "of a builder: pretrained, default, none, coco, or a name such as COCO_LEGACY"
    parser.add_argument("--weights", default="pretrained", help=wiring)
    parser.add_argument("--batch-size", type=int, help="images per forward pass, if known")
    parser.add_argument("--json", action="store_true", help="print JSON, layer by layer")
    options = parser.parse_args(arguments)
    names = options.model or list_models(module=detection)
    try:
        audits = {name: _audited(name, options.weights, options.batch_size) for name in names}
    except (TypeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    facts = {"models": {name: found.to_dict() for name, found in audits.items()}}
    print(json.dumps(facts, indent=2) if options.json else "\n\n".join(map(repr, audits.values())))
    return int(any(found.findings for found in audits.values()))


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a console that knows no arrow
    if hasattr(signal, "SIGPIPE"):  # not on Windows
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` has read enough: end quietly
    sys.exit(main())
