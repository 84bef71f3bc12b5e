"""Results made up for the very runs of an experiment."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments.analysis.results import Results, flatten
from experiments.engine.expand import expand

Value = Callable[[str, int, dict[str, Any]], float]  # of a metric, at a step, of a regularizer


@pytest.fixture
def made_up(composed):
    """`made_up(experiment, metrics, steps, value, noise)`: at cpu scale, and a little noise of each record."""

    def call(name: str, metrics: Iterable[str], steps: Iterable[int], value: Value, noise: float = 1e-4) -> Results:
        words = (f"experiment={name}", "scale=cpu")
        runs = expand(composed(*words), lambda more: composed(words[0], *more))
        rng, rows, records = np.random.default_rng(0), [], []
        for run in runs:
            settings = dict(flatten({"regularizer": run.config["regularizer"]}))
            rows.append({"id": run.id, "scale": "cpu", "status": "done", "seed": run.seed, **settings})
            for metric, step in ((m, s) for m in metrics for s in steps):
                number = value(metric, step, run.config["regularizer"]) + rng.normal(0, noise)
                records.append({"id": run.id, "step": step, "split": "test", "metric": metric, "value": number})
        frame = pd.DataFrame(rows).replace("", np.nan)
        for column in ("weight_decay", "sigma", "gains"):
            frame[f"regularizer.{column}"] = pd.to_numeric(frame[f"regularizer.{column}"])
        return Results(experiment=name, scale="cpu", runs=frame, metrics=pd.DataFrame(records))

    return call
