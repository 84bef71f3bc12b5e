"""Configurations: every file is complete and composes, and a run's id depends on what decides its numbers alone."""

import copy
import dataclasses
import hashlib
import itertools
import json
import re
from pathlib import Path

import pytest
import yaml
from hydra.utils import get_class
from replicas import REGULARIZERS, RIVALS

from experiments.analysis import results
from experiments.analysis.results import LATER
from experiments.engine.config import GROUPS, Run, Scale, identity, run_id
from experiments.engine.expand import expand
from syre.trainer import Training

CONFIGS = Path(__file__).parents[3] / "configs"
RESULTS = CONFIGS.parent / "results"
EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))
LEAVES = [path for group in GROUPS for path in sorted((CONFIGS / group).glob("*.yaml"))]

GOLDEN = {
    "experiment": "fig0", "recipe": 1, "scale": "cpu", "seed": 3,
    "model": {"_target_": "syre.models.MLP", "name": "mlp", "hidden": [8, 8], "activation": "relu"},
    "data": {"_target_": "syre.data.Digits", "name": "digits", "input_scale": 0.1},
    "regularizer": {"_target_": "syre.regularizers.Vanilla", "name": "vanilla"},
    "optim": {"_target_": "syre.optim.SGD", "name": "sgd", "lr": 0.1, "momentum": 0.0, "nesterov": False},
    "task": {"_target_": "syre.tasks.Classification", "name": "classification", "thresholds": [0.01], "spectrum": []},
    "train": {"epochs": 1, "steps": 0, "batch_size": 64, "schedule": "constant", "warmup": 0.0, "clip": 0.0,
              "evaluations": 1, "checkpoints": 0},
    "compute": {"device": "auto", "threads": 1, "precision": "fp32", "compile": False},
}  # fmt: skip


ADVICE = (
    "{} of the {} runs in results/{} are runs of it no more, and would be trained again. A key that is new, and "
    "changes nothing at its default, says so in the YAML where it stands: `_later_: {{key: default}}`"
)


# ---- the files -----------------------------------------------------------------------------------------------------


def test_there_are_experiments_and_leaves():
    assert {"fig4", "fig5"} <= set(EXPERIMENTS)
    assert len(LEAVES) > 15


KEPT = yaml.safe_load(Path(__file__).with_name("ids.yaml").read_text())
MOVED = (
    "{}: these runs are others than they were, and would be trained again. New runs stand after those that are there "
    "(a block at the end of `runs:`), and a new key says so where it stands (`_later_: {{key: default}}`)"
)


def digest(runs):
    return f"{len(runs)} {hashlib.blake2b(''.join(run.id for run in runs).encode(), digest_size=8).hexdigest()}"


def parts(runs, kept):
    """The runs as the list has them: in the parts in which they came, and what is new."""
    ends = [0, *itertools.accumulate(int(part.split()[0]) for part in kept)]
    found = [digest(runs[start:end]) for start, end in itertools.pairwise(ends)]
    return found + ([digest(runs[ends[-1] :])] if len(runs) > ends[-1] else [])


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_and_expands_at_every_scale(composed, experiment):
    table = results.read_table(RESULTS / experiment / "runs.csv")
    for scale in Scale:
        config = at(scale, composed(f"experiment={experiment}"))
        runs = expand(config, lambda members, scale=scale: at(scale, composed(f"experiment={experiment}", *members)))
        assert config.experiment == experiment
        assert config.budget
        assert len({run.id for run in runs}) == len(runs) >= 3
        kept = {row["id"] for row in table if row["scale"] == scale}
        moved = kept - {run.id for run in runs}
        assert not moved, ADVICE.format(len(moved), len(kept), experiment)
        name = f"{experiment} {scale}"  # also runs never trained here: somebody may have them on a cluster
        listed = KEPT.get(name, [])
        now = parts(runs, listed)
        assert now[: len(listed)] == listed, MOVED.format(name)
        assert now == listed, f"new runs: put `{name}: {json.dumps(now)}` into ids.yaml"


def at(scale, config):
    """The configuration at a scale: a value like any other, so that it need not be composed anew."""
    config.scale = scale
    return config


@pytest.mark.parametrize("scale", Scale)
def test_a_scale_is_a_value_like_any_other(composed, scale):
    for experiment in ("fig5", "gpt"):
        assert at(scale, composed(f"experiment={experiment}")) == composed(f"experiment={experiment}", f"scale={scale}")


def test_control_a_run_that_moves_or_goes_is_seen(composed):
    runs = [Run(config=identity(composed(f"seed={seed}"))) for seed in range(4)]
    kept = [digest(runs[:2]), digest(runs[2:3])]
    assert parts(runs[:3], kept) == kept
    assert parts(runs, kept) == [*kept, digest(runs[3:])]
    for other in (runs[1:], [runs[3], *runs[:3]], runs[:2]):
        assert parts(other, kept)[:2] != kept


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_leaf_spells_every_field_of_its_class_and_is_named_like_its_file(path):
    settings = yaml.safe_load(path.read_text())
    assert settings.pop("name") == path.stem
    cls = get_class(settings.pop("_target_"))
    later = settings.pop(LATER, {})
    assert later.items() <= settings.items()
    assert list(settings) == [field.name for field in dataclasses.fields(cls)]


def test_the_training_defaults_spell_every_field():
    settings = yaml.safe_load((CONFIGS / "train" / "default.yaml").read_text())
    assert settings.pop(LATER).items() <= settings.items()
    assert list(settings) == [field.name for field in dataclasses.fields(Training)]


@pytest.mark.parametrize("group", GROUPS)
def test_every_leaf_resolves_to_an_object_of_its_class(composed, group):
    for path in sorted((CONFIGS / group).glob("*.yaml")):
        run = Run(config=identity(composed(f"{group}={path.stem}")))
        run.check()
        assert type(getattr(run, group)) is get_class(yaml.safe_load(path.read_text())["_target_"])


def test_a_regularizer_is_spelt_alike_in_file_key_and_class():
    files = {path.stem: yaml.safe_load(path.read_text()) for path in (CONFIGS / "regularizer").glob("*.yaml")}
    classes = {cls.name: cls for cls in [*REGULARIZERS, *RIVALS]}
    assert {name: get_class(settings["_target_"]) for name, settings in files.items()} == classes
    for name, cls in classes.items():
        assert files[name]["name"] == name
        assert re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=W)(?=[AF])", "_", cls.__name__).lower() == name


def test_scales_are_spelt_alike_in_configurations_and_tables():
    assert tuple(Scale) == results.SCALES


# ---- the identity of a run -----------------------------------------------------------------------------------------


def leaves(node, prefix=()):
    for key, value in node.items():
        yield from leaves(value, (*prefix, key)) if isinstance(value, dict) else [(*prefix, key)]


def test_a_key_that_came_later_changes_no_id_at_the_value_that_changes_nothing():
    """The trap: `norm: none`, a key with a default, in the YAML of a model gave all runs of its figures new ids."""
    new = GOLDEN | {"model": GOLDEN["model"] | {"norm": "none"}}
    assert run_id(new) != run_id(GOLDEN)  # control
    said = GOLDEN | {"model": GOLDEN["model"] | {"norm": "none", LATER: {"norm": "none"}}}
    assert run_id(said) == run_id(GOLDEN)
    assert run_id(said | {"model": said["model"] | {"norm": "layer"}}) != run_id(GOLDEN)


def test_the_id_of_a_run_is_the_same_for_ever():
    """If this fails, every run of every experiment has a new id, and all results are to be trained again."""
    assert run_id(GOLDEN) == "1dcaa9661156"
    assert run_id(dict(reversed(GOLDEN.items()))) == run_id(GOLDEN)
    assert run_id(GOLDEN | {"outputs": "elsewhere", "wandb": {"mode": "offline"}}) == run_id(GOLDEN)


@pytest.mark.parametrize("path", list(leaves(GOLDEN)), ids=".".join)
def test_every_setting_that_decides_numbers_is_part_of_the_id(path):
    changed = copy.deepcopy(GOLDEN)
    node = changed
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = [node[path[-1]], "changed"]
    assert run_id(changed) != run_id(GOLDEN)


def test_paths_logging_and_the_description_of_the_sweep_are_not_part_of_the_id(composed):
    plain = run_id(identity(composed()))
    assert plain == run_id(identity(composed(
        "outputs=elsewhere", "results=elsewhere", "data_root=/data", "wandb.mode=offline", "wandb.project=p",
        "budget=none", "curves=[loss]", "replicas=3", "batched=[seed]", "seeds=3", "group=g", "+scales.cpu.seed=3",
        "runs=[{seed:1}]",
    )))  # fmt: skip
    assert plain != run_id(identity(composed("seed=1")))  # control


@pytest.mark.parametrize(("later", "other"), [("train.accumulate", 2), ("regularizer.unit", "absolute")])
def test_a_key_that_came_later_leaves_the_ids_of_earlier_runs_as_they_were(composed, later, other):
    group, key = later.split(".")
    config = identity(composed("regularizer=syre"))
    before = {**config, group: {name: v for name, v in config[group].items() if name != key}}
    assert before != config
    assert run_id(config) == run_id(before)
    changed = identity(composed("regularizer=syre", f"{later}={other}"))
    assert run_id(changed) != run_id(before)  # control: where it changes something


def test_a_loaded_identity_is_the_composed_one(composed):
    """Only plain words and numbers: it is written as JSON and YAML, and read back."""
    config = identity(composed("wandb.mode=offline", "compute.precision=bf16"))
    assert yaml.safe_load(yaml.safe_dump(config)) == config
    assert type(config["scale"]) is type(config["compute"]["precision"]) is str
