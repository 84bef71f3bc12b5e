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

# A compiled step would compile these for every name. torch.compiler.disable would import the compiler, for seconds.
eager = getattr(torch, "_disable_dynamo", lambda function: function)


@eager
def stream(seed: int, count: int, name: str, device: torch.device) -> torch.Generator:
    """The random bits of the `count`-th sum of `name`, a tensor or several in one: alike in every process."""
    key = hashlib.blake2b(f"{seed}\0{count}\0{name}".encode(), digest_size=7).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(key, "little"))


@eager
def add_rounded_(
    target: Tensor, anchor: Tensor, amount: float, bits: torch.Generator, scale: Tensor | None = None
) -> None:
    """`w += amount b`, or with D `w += amount ((1 - D) w + D b)`, rounded stochastically: E[result] is the sum.

    In place. Same shapes; `target` of float32, bfloat16 or float16, whose sum is one of float64 or float32 (`FORMATS`).
    Where nothing is added, w stays bit for bit; where the sum is no number, neither is the result. On a
    device without float64 (MPS) float32 is rounded to the nearest, as torch does.
    """
    wide, integers, lacking = FORMATS[target.dtype]
    if wide is torch.float64 and target.device.type == "mps":
        target.add_(anchor if scale is None else (1 - scale) * target + scale * anchor, alpha=amount)
        return
    exact = target.to(wide, copy=True)
    if scale is None:
        exact.add_(anchor, alpha=amount)
    else:
        own = scale.to(wide)
        exact.add_(exact - own * exact + own * anchor, alpha=amount)
    noise = torch.empty((exact.numel() + 1) // 2, dtype=torch.int64, device=target.device).random_(generator=bits)
    noise = noise.view(torch.int32)[: exact.numel()].bitwise_and_((1 << lacking) - 1).view(exact.shape)
    broken = exact.isnan()  # the last bits of one may carry
    if target.dtype is torch.float16:  # whose numbers below 2^-14 are 2^-24 apart
        exponent = exact.view(integers).bitwise_right_shift(23).bitwise_and_(0xFF).clamp_(min=127 - 14)
        apart = exponent.sub_(10).bitwise_left_shift_(23).view(wide)
        rounded = (exact.abs().div_(apart).add_(noise.to(wide).div_(1 << lacking))).floor_().mul_(apart)
        exact = torch.copysign(rounded, exact, out=exact)
    else:
        exact.view(integers).add_(noise).bitwise_and_(-(1 << lacking))
    target.copy_(exact.masked_fill_(broken, torch.nan))


@eager
def entries(tensors: list[Tensor], start: int, end: int, parts: int) -> list[Tensor] | None:
    """Parts `start` to `end` of `parts` equal ones of the entries of tensors of one shape, the same of each; or None.

    Views, to write to: in the order of memory where the tensors share one, else along the first dimension. None if
    there are fewer entries than parts, and none of these.
    """
    if not all(t.is_contiguous() for t in tensors):
        order = sorted(range(tensors[0].dim()), key=tensors[0].stride, reverse=True)
        turned = [t.permute(order) for t in tensors]
        tensors = turned if all(t.is_contiguous() for t in turned) else tensors
    flat = [t.view(-1) for t in tensors] if all(t.is_contiguous() for t in tensors) else tensors
    size = len(flat[0])
    first, last = start * size // parts, end * size // parts
    return [t[first:last] for t in flat] if last > first else None
