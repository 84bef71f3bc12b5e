"""What holds for all tests: W&B is asked for by those that are about it."""

import os
import signal

os.environ["WANDB_MODE"] = "disabled"

# In the background of a shell Ctrl-C is ignored, and by all processes that begin there: tests that send it would hang.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
