"""What runs are called, what they have come to, and the data that a small scale takes, in words."""

import json

import pytest
from hydra import initialize_config_dir

from experiments.engine.config import Run, identity
from experiments.engine.expand import data_at
from experiments.engine.experiment import CONFIGS, Experiment
from experiments.engine.words import LONGEST, called, data_used, ended, names, tags


@pytest.fixture(scope="module")
def sweep():
    """The runs of an experiment, by name and scale."""
    kept = {}

    def load(name, scale="cpu"):
        if (name, scale) not in kept:
            with initialize_config_dir(str(CONFIGS), version_base="1.3"):
                kept[name, scale] = Experiment.load(name, [f"scale={scale}"])
        return kept[name, scale]

    return load


@pytest.fixture
def run_of(composed):
    return lambda *words: Run(config=identity(composed(*words)))


# ---- names -----------------------------------------------------------------------------------------------------------

EXPECTED = {
    "fig4": ["vanilla seed 10", "syre sigma=1 gamma=0.1 seed 10", "w_fix fraction=0.1 kappa=0.1 seed 12",
             "syre sigma=0.01 gamma=5 spectrum=structured seed 19", "dropout rate=0.3 seed 11"],
    "fig5": ["vanilla seed 0", "weight_decay gamma=0.1 seed 4", "syre sigma=1 gamma=0.1 seed 0",
             "syre sigma=1 start=keep gamma=0.1 seed 0", "syre sigma=0.01 gamma=0.001 input_scale=0.03 seed 2",
             "syre scope=matrices sigma=0.1 unit=absolute gamma=0.001 input_scale=0.01 seed 1"],
    "fig6": ["vanilla seed 0", "syre sigma=1 gamma=0.002 seed 2", "weight_decay gamma=0.002 backend=pybullet seed 1"],
    "rivals": ["syre sigma=1 gamma=0.05 permuted_mnist seed 5", "vanilla norm=layer permuted_mnist lr=0.02 seed 6",
               "shrink_perturb shrink=0.4 perturb=0.5 permuted_mnist seed 7"],
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_a_run_is_called_by_what_it_is_in_few_words_and_as_no_other_of_its_experiment(sweep, name):
    runs = sweep(name).runs
    found = names(runs)
    assert set(EXPECTED[name]) <= set(found.values())
    assert len(set(found.values())) == len(runs) == len(found)
    assert max(map(len, found.values())) <= LONGEST


def test_what_all_runs_share_is_said_of_none_but_of_a_regularizer_whatever_is_not_usual(run_of):
    words = ("train.epochs=7", "model.hidden=[8,8]", "regularizer=syre", "regularizer.start=keep", "optim=sgd")
    runs = [run_of(*words, f"regularizer.sigma={sigma}") for sigma in (0.01, 0.1)]
    assert list(names(runs).values()) == ["syre sigma=0.01 start=keep seed 0", "syre sigma=0.1 start=keep seed 0"]
    other = ("data=random_matrix", "model=point", "task=matrix")
    several = [*runs, run_of(*(word for word in words if not word.startswith("model")), *other)]
    assert names(several)[runs[0].id] == "syre sigma=0.01 start=keep mlp digits classification seed 0"
    assert names(several)[several[2].id] == "syre start=keep point random_matrix matrix seed 0"


def test_a_run_alone_is_called_by_all_that_is_not_usual(run_of):
    for words, name in {
        (): "weight_decay seed 0",
        ("regularizer=syre", "data=digits", "train.epochs=2"): "syre epochs=2 seed 0",
        ("regularizer=syre", "regularizer.sigma=1", "regularizer.weight_decay=0.1"): "syre sigma=1 gamma=0.1 seed 0",
        ("model=resnet18", "data=cifar10", "seed=3"): "weight_decay resnet18 cifar10 seed 3",
        ("compute.precision=bf16", "optim.lr=0.01"): "weight_decay lr=0.01 precision=bf16 seed 0",
    }.items():
        assert list(names([run_of(*words)]).values()) == [name]


def test_a_name_for_which_there_is_no_room_keeps_its_seed(run_of):
    widths = ",".join(map(str, range(10, 60)))
    (name,) = names([run_of("regularizer=syre", "regularizer.sigma=2", f"model.hidden=[{widths}]", "seed=7")]).values()
    assert name == "syre sigma=2 seed 7"


def test_a_regularizer_of_ones_own_without_a_yaml_is_called_by_what_varies():
    settings = {"_target_": "mine.Own", "name": "own", "strength": 0.5}
    base = {"experiment": "mine", "scale": "cpu", "train": {"epochs": 5}, "task": None}
    runs = [Run(config=base | {"seed": seed, "regularizer": settings | {"strength": seed}, "recipe": 1, "model": None,
                               "data": None, "optim": None, "compute": {}}) for seed in (0, 1)]  # fmt: skip
    assert list(names(runs).values()) == ["own strength=0 seed 0", "own strength=1 seed 1"]


def test_tags_are_what_runs_are_filtered_by(run_of, sweep):
    run = run_of("experiment=gpt", "model=gpt", "data=text", "regularizer=syre", "scale=paper")
    assert tags(run) == ["gpt", "paper", "text", "syre"]  # each once
    assert called([run_of()]) == {
        run_of().id: {"name": "weight_decay seed 0", "tags": ["run", "cpu", "mlp", "digits", "weight_decay"]}
    }
    (some, *_) = sweep("theory", "smoke").runs
    assert tags(some) == ["theory", "smoke"]  # it has no model


# ---- what a run has come to ------------------------------------------------------------------------------------------


def rows(*records):
    return [dict(zip(("step", "split", "metric", "value"), record, strict=True)) for record in records]


def test_a_run_has_come_to_its_last_values_on_unseen_data():
    records = rows(("0", "test", "loss", "2.5"), ("100", "test", "loss", "0.123456"), ("20", "test", "loss", "1"),
                   ("100", "test", "rank/0.01", "7"), ("100", "test", "rank", "12"), ("100", "train", "loss", "9"),
                   ("100", "test", "accuracy", "0.5"))  # fmt: skip
    assert ended(records) == "accuracy 0.5, loss 0.1235, rank 12"
    assert ended(records[:2]) == "loss 0.1235"


def test_of_an_agent_it_is_the_return_and_of_a_measurement_what_there_is():
    agent = rows(("9", "test", "length", "3"), ("9", "test", "return", "-41.7"), ("9", "test", "rank", "16"))
    assert ended(agent) == "return -41.7, rank 16"
    measured = rows(*(("0", "test", name, str(k)) for k, name in enumerate("abcd")))
    assert ended(measured) == "a 0, b 1, c 2"
    assert ended([]) == ""
    assert ended(rows(("0", "test", "loss", "nan"))) == "loss nan"


# ---- the data of a small scale ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "samples", "said"),
    [
        ("fig5", {"digits": {1442}}, "digits, 1442 samples, in place of mnist"),
        ("fig5", {}, "digits, in place of mnist"),  # not loaded: nothing was to train
        ("fig4", {}, "random_matrix, size=30 in place of 100"),
        ("fig6", {}, "slippery_ant, change_every=300 in place of 93000"),
        ("theory", {}, ""),
        (
            "fig11",
            {"permuted_mnist": {256}},
            "permuted_mnist, 256 samples, base=digits in place of mnist, tasks=4 in place of 10, test_samples=100 in "
            "place of 2000",
        ),
    ],
)
def test_smoke_names_the_data_that_it_really_takes(sweep, name, samples, said):
    small = sweep(name, "smoke")
    elsewhere = data_at("cpu", small.config, small.keys, {})
    data = [run.config["data"] for run in small.runs if run.config["data"]]
    assert data_used(data, elsewhere, samples) == said
    large = [run.config["data"] for run in sweep(name).runs if run.config["data"]]
    assert " in place of " not in data_used(large, elsewhere, {})  # the control: at that scale it is what it is


def test_the_data_of_another_scale_are_those_of_its_runs(sweep):
    """Without composing them, but for settings that no run is told."""
    for name in ("fig4", "fig5", "fig11", "hurts"):
        small, large = sweep(name, "smoke"), sweep(name)
        told = data_at("cpu", small.config, small.keys, {})
        there = [run.config["data"] for run in large.runs]
        assert {each["name"] for each in told} == {each["name"] for each in there}
        for each in told:
            plain = json.loads(json.dumps(each))
            assert any(plain.items() <= data.items() for data in there), plain


def test_a_range_of_samples_and_several_data_sets_are_said():
    here = [{"name": "a", "noise": noise} for noise in (0, 1)] + [{"name": "b", "samples": 64}]
    there = [{"name": "a", "noise": noise} for noise in (2, 3)] + [{"name": "b", "samples": 0}, {"name": "c"}]
    assert data_used(here, there, {"a": {5, 50}}) == "a, 5 to 50 samples; b, samples=64 in place of all; in place of c"
