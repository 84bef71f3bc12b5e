"""Runs ready to be stepped: a lone one on its stock optimizer, or many stacked, each on the trajectory of its own."""

from collections.abc import Sequence
from typing import Any

from syre.learners.batched import BatchedOptimizer
from syre.learners.ensemble import Ensemble
from syre.learners.protocol import Learner, Loss, Replica, replicas_per_process
from syre.learners.single import Single


def learner(replicas: Sequence[Replica], **single: Any) -> Learner:
    """The learner for these replicas: a lone run on its stock optimizer, or an ensemble."""
    return Single(replicas[0], **single) if len(replicas) == 1 else Ensemble(replicas)
