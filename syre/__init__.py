"""syre: remove the symmetries of any model in one line, `syre.attach(optimizer, model)`.

Source: Ziyin, Xu, Chuang, Remove Symmetries to Control Model Expressivity and Improve Optimization (ICLR 2025,
arXiv 2408.15495). Importing this imports torch and numpy and nothing heavier.
"""

from syre.core import SyreHandle, attach, attach_anchors, draw_anchors, draw_scales, merge, parametrize
from syre.diagnostics import Diagnosis, Watch, diagnose

__version__ = "0.1.0"
__all__ = [
    "Diagnosis", "SyreHandle", "Watch", "attach", "attach_anchors", "diagnose", "draw_anchors", "draw_scales", "merge",
    "parametrize",
]  # fmt: skip
