"""float32 as it says: GPUs since Ampere compute convolutions in TF32, with 10 bits of mantissa, unless told not to."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_float32() -> Iterator[None]:
    """Inside, convolutions and matrix products of float32 are of full precision; what was set before comes back.

    The rank of features that are rounded to 10 bits is the rank of their rounding. What runs under autocast in bfloat16
    is left as it is. `torch.backends.cudnn.allow_tf32`, the older name, cannot be read inside: torch raises.
    """
    cudnn: Any = torch.backends.cudnn  # a module that becomes another one when it is imported
    switches = (torch.backends.cuda.matmul, cudnn.conv)
    before = [switch.fp32_precision for switch in switches]
    try:
        for switch in switches:
            switch.fp32_precision = "ieee"
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value
