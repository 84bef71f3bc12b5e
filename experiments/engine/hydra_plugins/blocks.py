"""Hydra's door to the sweep: a Sweeper that launches one job per group of runs. Hydra finds it by its place."""

from functools import partial
from typing import Any, cast

from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from experiments.engine.jobs import OneForAll

NODE = {"_target_": "hydra_plugins.blocks.Blocks"}
ConfigStore.instance().store(group="hydra/sweeper", name="blocks", node=NODE, provider="syre")


class Blocks(Sweeper):
    """Expands `runs:` of the experiment, skips what is finished, launches the rest, collects the tables."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.whole, self.compose = config, partial(hydra_context.config_loader.load_sweep_config, config)
        make, loader = Plugins.instance().instantiate_launcher, OneForAll(hydra_context.config_loader)
        of_jobs = HydraContext(config_loader=cast(ConfigLoader, loader), callbacks=hydra_context.callbacks)
        self.launcher = make(hydra_context=of_jobs, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> Any:
        from experiments.engine.sweep import sweep

        return sweep(self.whole, arguments, self.compose, self.launcher)
