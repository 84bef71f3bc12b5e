"""The configuration of the jobs of a sweep, which differ in their group alone: composed once in each process.

Hydra composes it anew for each job, a sixth of a second on one core: of a sweep of small groups that is most of the
time.
"""

from typing import Any
from uuid import uuid4

from omegaconf import DictConfig, OmegaConf, open_dict


class OneForAll:
    """Hydra's loader of configurations, as a launcher has it, for jobs whose last override is `group='<id>'`."""

    composed: tuple[str, DictConfig] | None = None  # of the class, hence of the process; for which sweep, and what

    def __init__(self, loader: Any) -> None:
        self.loader, self.sweep = loader, uuid4().hex

    def load_sweep_config(self, master: DictConfig, words: list[str]) -> DictConfig:
        """The configuration of a job: that of the one before, which has ended, with another group."""
        if OneForAll.composed is None or OneForAll.composed[0] != self.sweep:
            config = self.loader.load_sweep_config(master, words)
            with open_dict(config):
                config.runs, config.scales = [], {}  # Hydra copies it again and again, and a job knows its runs
            OneForAll.composed = self.sweep, config
        config = OneForAll.composed[1]
        OmegaConf.set_readonly(config.hydra, False)
        config.group = words[-1].partition("=")[2].strip("'")
        config.hydra.overrides.task = list(words)
        return config
