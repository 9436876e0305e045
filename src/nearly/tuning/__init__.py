"""From measured recall to the effort that a target needs."""

from nearly.tuning.curve import RecallCurve
from nearly.tuning.measuring import measure
from nearly.tuning.probing import Probing

__all__ = ["Probing", "RecallCurve", "measure"]
