"""Which normalization layers a model has, and which of them are a trap.

    python -m helpers.audit fasterrcnn_mobilenet_v3_large_fpn

looks at a torchvision builder, `--help` says how; `audit(model)` at any model.
"""

from helpers.audit.traps import Audit, Finding, Layer, audit, audit_builder

__all__ = ["Audit", "Finding", "Layer", "audit", "audit_builder"]
