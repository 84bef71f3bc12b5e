"""W&B mirrors what is written locally; nothing is read back from it, and `mode: offline` needs no account."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from experiments.config import Run

Row = tuple[int, str, str, list[float]]  # step, split, metric, one value per replica


class Tracker:
    """One run in W&B: id = run id, group = experiment, config = its configuration; loss, accuracy, rank by step.

    W&B keeps its files in `folder`/wandb.
    """

    def __init__(self, run: Run, *, mode: str, project: str, folder: Path) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self._run: Any = wandb.init(
            mode=mode, project=project, dir=folder, id=run.id, group=run.config["experiment"], resume="allow",
            config=run.config, settings=wandb.Settings(console="off", x_disable_stats=True),
        )  # fmt: skip

    def log(self, rows: Iterable[Row], replica: int = 0) -> None:
        """Rows of one or more steps, in order."""
        steps: dict[int, dict[str, float]] = {}
        for step, split, metric, values in rows:
            steps.setdefault(step, {})[f"{split}/{metric}"] = values[replica]
        for step, values in steps.items():
            self._run.log(values, step=step)

    def finish(self, status: str) -> None:
        self._run.summary["status"] = status
        self._run.finish(exit_code=0 if status != "failed" else 1)
