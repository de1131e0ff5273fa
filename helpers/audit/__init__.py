"""Which normalization layers a model has, and which of them are a trap: audit(model).

python -m helpers.audit fasterrcnn_mobilenet_v3_large_fpn looks at a torchvision builder.
"""

from helpers.audit.report import Audit, Finding, Layer
from helpers.audit.traps import audit, audit_builder

__all__ = ["Audit", "Finding", "Layer", "audit", "audit_builder"]
