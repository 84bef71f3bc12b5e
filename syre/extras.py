"""Packages that only some parts of the checkout need, and the extra that brings them."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str) -> Iterator[None]:
    """What is imported inside needs the packages of this extra of pyproject.toml.

    Raises:
        ModuleNotFoundError: one of them is not installed, in one line that says how to install it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        words = f"{error.name} is not installed: pip install -e '.[{name}]' in the checkout"
        raise ModuleNotFoundError(words, name=error.name) from error
