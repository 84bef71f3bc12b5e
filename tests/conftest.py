"""What holds for all tests: W&B is asked for by those that are about it."""

import os

os.environ["WANDB_MODE"] = "disabled"
