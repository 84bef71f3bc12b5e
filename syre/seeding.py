"""Seeds: every random stream of a run is derived from its one integer seed and a purpose."""

import hashlib

import torch


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit integer from (seed, purpose): blake2b, so it is equal in every process and on every machine.

    Python's `hash()` would not do: it is salted per process.
    """
    text = "/".join(map(str, (seed, *purpose))).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def generator(seed: int, *purpose: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for one purpose of one run; the stream of another kind of device is another stream."""
    return torch.Generator(device).manual_seed(derive_seed(seed, *purpose))


def restore_generator(stream: torch.Generator, state: torch.Tensor) -> None:
    """Bring a generator to a state from `get_state()`; one of another kind of device has no place in this stream.

    From there the generator goes on with a stream of its own, which that state alone decides. (Noise is drawn where it
    is used: a vision transformer on a GPU would wait a second a step for a CPU to draw its dropout.)
    """
    if state.shape == stream.get_state().shape:
        stream.set_state(state)
    else:
        stream.manual_seed(derive_seed(0, "another device", state.numpy().tobytes().hex()))
