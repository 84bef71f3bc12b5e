"""Jobs of a sweep have the configuration that Hydra would compose for each of them, and compose it once."""

from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from experiments.engine.config import identity
from experiments.engine.experiment import CONFIGS
from experiments.engine.jobs import OneForAll

WORDS = ["experiment=fig4", "scale=smoke", "optim.lr=0.5"]


@pytest.fixture
def loader():
    """Hydra's, which keeps what it has been asked."""
    asked: list[list[str]] = []

    def load(master: DictConfig, words: list[str]) -> DictConfig:
        asked.append(words)
        return compose("config", words, return_hydra_config=True)

    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        yield SimpleNamespace(load_sweep_config=load, asked=asked)


def test_a_job_has_its_own_group_and_all_else_as_hydra_composes_it(loader):
    jobs = OneForAll(loader)
    for group in ("012345678901", "12e456789012"):  # which look like numbers
        words = [*WORDS, f"group='{group}'"]
        job, plain = jobs.load_sweep_config(None, words), compose("config", words)
        assert (job.group, list(job.hydra.overrides.task)) == (group, words)
        assert identity(job) == identity(plain)
        for key in set(plain) - {"runs", "scales"}:  # which say what there is to train, and a job has its group
            assert job[key] == plain[key], key
        with open_dict(job.hydra):  # as a launcher does ...
            job.hydra.job.num = 1
        HydraConfig.instance().set_config(job)  # ... before Hydra makes it read-only
    assert len(loader.asked) == 1


def test_another_sweep_of_the_same_process_is_composed_by_itself(loader):
    first = OneForAll(loader).load_sweep_config(None, [*WORDS, "group='012345678901'"])
    other = OneForAll(loader).load_sweep_config(None, [*WORDS[:2], "optim.lr=0.25", "group='012345678901'"])
    assert (first.optim.lr, other.optim.lr, len(loader.asked)) == (0.5, 0.25, 2)
