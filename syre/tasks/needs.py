"""What a task needs of a model and of its data: asked before anything is trained, and said in one line.

Each raises ValueError where that is not given; `task` is the name by which the task is chosen.
"""

from math import ceil, prod
from typing import Any

from torch import nn

from syre.checks import check
from syre.data import Dataset
from syre.models.base import Model, has_running_statistics
from syre.models.resnet import ResNetModule
from syre.models.stock import StockModule
from syre.trainer import Training

# What a module says in `gives` (see `syre.models`), and the models that give it.
MODELS = {
    "logits": ("collapsed_mlp", "continual_cnn", "mlp", "resnet18", "stock", "vit"),
    "projections": ("simclr",),
    "two networks": ("pair",),
    "an autoencoder": ("beta_vae",),
    "a linear form": ("diagonal_linear",),
    "a point": ("point",),
    "next tokens": ("gpt",),
}


def model(task: str, module: nn.Module, *kinds: str) -> None:
    """A model that gives one of these."""
    given = (module if isinstance(module, Model) else Model).gives
    allowed = ", ".join(name for kind in kinds for name in MODELS[kind])
    wanted = f"task={task} needs a model that gives {' or '.join(kinds)} (model={allowed})"
    check(given in kinds, f"{wanted}, {type(module).__name__} gives {given}")


def data_set(task: str, data: Any) -> None:
    """A data set with one target a sample, or one a sample and task."""
    wrong = f"task={task} needs a data set; an environment (data=slippery_ant) is for task=ppo"
    check(isinstance(data, Dataset), wrong)
    each = f"task={task} needs one target a sample; text (data=text), which has one a token, is for task=language"
    check(data.train_targets.dim() == 1 or data.relabelled, each)


def tokens(task: str, data: Any) -> None:
    """Text: a target for each token."""
    fits = isinstance(data, Dataset) and data.train_targets.shape == data.train_inputs.shape and not data.views > 1
    check(fits and not data.train_inputs.is_floating_point(), f"task={task} needs text (data=text)")


def classes(task: str, data: Any, views: int = 1) -> None:
    """A data set whose samples have classes, and so many views of each in a batch."""
    data_set(task, data)
    others = "unlike data=linear_regression and diabetes, of task=regression, and random_matrix, of task=matrix"
    check(not data.train_targets.is_floating_point(), f"task={task} needs data with classes, {others}")
    taken, given = f"{views} view{'s' * (views > 1)} of each image", "data.augment=simclr gives two, all else gives one"
    check(data.views == views, f"task={task} takes {taken}, the data gives {data.views}: {given}")


def batch(module: nn.Module, data: Dataset, settings: Training) -> None:
    """More than one number for each BatchNorm to take its mean of in training."""
    images = settings.batch(len(data.train_inputs)) // settings.accumulate * data.views
    for part in module.modules():
        numbers = images  # of a stock model it is not known how many pixels its last stage has
        if isinstance(part, ResNetModule):
            numbers *= prod(ceil(size / part.stride) for size in data.input_shape[1:])
        if isinstance(part, ResNetModule | StockModule) and has_running_statistics(part):
            wrong = "BatchNorm takes no mean of a single number: raise train.batch_size, or lower train.accumulate"
            check(numbers > 1, f"{wrong}, to 2 images in each part of a batch")
