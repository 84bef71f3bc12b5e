"""What the user can mend is said in one line."""

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from experiments.analysis.results import ResultsError


class ConfigError(Exception):
    """A configuration that cannot be run; the message is one line."""


class OutOfMemory(Exception):
    """Runs that did not fit; the message is one line that says what to lower."""


class Killed(Exception):
    """Processes that ended without a word; the message is one line that says by what."""


def is_users(error: BaseException) -> bool:
    """Whether it is something that the user can mend, and says all in one line."""
    if isinstance(error, ConfigError | OutOfMemory | Killed | ResultsError | HydraException | OmegaConfBaseException):
        return True
    from syre.data import DataError  # here, for what is finished to need no torch

    return isinstance(error, DataError)


def one_line(error: BaseException) -> str:
    """An error and what Hydra hides behind it, as one line."""
    cause = error.__cause__
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and isinstance(cause.parent_node, DictConfig):
        allowed = ", ".join(sorted(key for key in map(str, cause.parent_node) if not key.startswith("_")))
        return f"unknown key {cause.full_key}; it may be one of {allowed}"
    complete = is_users(error) and not isinstance(error, HydraException | OmegaConfBaseException)
    text, more = (" ".join(str(e or "").split()) for e in (error, None if complete else cause))
    if more not in text:
        text = more if text in more else f"{text}; {more}"
    text = text.split(" Config search path:")[0]
    return text if is_users(error) else f"{type(error).__name__}: {text}"
