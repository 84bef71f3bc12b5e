"""Packages that only some parts of the checkout need, and what brings them."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str) -> Iterator[None]:
    """What is imported inside needs the packages of this extra of pyproject.toml. Raises: as `needed`."""
    with needed(f"pip install -e '.[{name}]' in the checkout"):
        yield


@contextmanager
def needed(brings: str) -> Iterator[None]:
    """What is imported inside needs packages, and these words say what brings them.

    Raises:
        ModuleNotFoundError: one of them is not installed, in one line that says how to install it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error.name} is not installed: {brings}", name=error.name) from error
