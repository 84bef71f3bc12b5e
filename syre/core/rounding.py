"""Stochastic rounding: what is smaller than the last digit of a weight is added to it all the same, on average.

Source of the rounding rule: Croci et al. 2022, Royal Society Open Science 9, 211631: x between two neighbours of a
format goes up with the probability of its distance from the lower one, so the expectation of the result is x.
"""

import hashlib

import torch
from torch import Tensor

# dtype -> the dtype of the exact sum, integers of its size, and how many of its last bits the dtype lacks
FORMATS = {
    torch.float32: (torch.float64, torch.int64, 29),
    torch.bfloat16: (torch.float32, torch.int32, 16),
    torch.float16: (torch.float32, torch.int32, 13),
}
# A compiled step would compile this anew for every name. torch.compiler.disable would import the compiler, for seconds.
_eager = getattr(torch, "_disable_dynamo", lambda function: function)
CHUNK = 1 << 22  # entries whose exact sum is held at a time: 32 MB


@_eager
def stream(seed: int, count: int, name: str, device: torch.device) -> torch.Generator:
    """The random bits of the `count`-th sum of the tensor `name`: alike in every process, and in none twice."""
    key = hashlib.blake2b(f"{seed}\0{count}\0{name}".encode(), digest_size=7).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(key, "little"))


@_eager
def add_rounded_(
    target: Tensor, anchor: Tensor, amount: float, bits: torch.Generator, scale: Tensor | None = None
) -> None:
    """`w += amount b`, or with D `w += amount ((1 - D) w + D b)`, rounded stochastically: E[result] is the exact sum.

    In place. Same shapes; `target` of float32, bfloat16 or float16. Where nothing is added, w stays bit for bit. On a
    device without float64 (MPS) float32 is rounded to the nearest, as torch does.
    """
    wide, integers, lacking = FORMATS[target.dtype]
    if wide is torch.float64 and target.device.type == "mps":
        target.add_(anchor if scale is None else (1 - scale) * target + scale * anchor, alpha=amount)
        return
    rows = max(1, CHUNK * len(target) // target.numel()) if target.dim() and target.numel() else 1
    whole = [target, anchor] if scale is None else [target, anchor, scale]
    for w, b, *d in zip(*(t.split(rows) if t.dim() else (t,) for t in whole), strict=True):
        exact = w.to(wide, copy=True)
        if d:
            own = d[0].to(wide)
            exact.add_(exact - own * exact + own * b, alpha=amount)
        else:
            exact.add_(b, alpha=amount)
        noise = torch.empty_like(w, dtype=torch.int32).random_(0, 1 << lacking, generator=bits)
        exact.view(integers).add_(noise).bitwise_and_(-(1 << lacking))
        w.copy_(exact)
