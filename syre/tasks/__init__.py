"""Tasks: which loss is minimised and what is measured. A task is a frozen dataclass, the leaf of a config."""

from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from syre.batches import Batches
from syre.ensemble import Learner
from syre.tasks.classification import Classification
from syre.tasks.collapse import CollapsedStart, TangentKernel
from syre.tasks.connectivity import ModeConnectivity
from syre.tasks.contrastive import Contrastive
from syre.tasks.matrix import MatrixObjective
from syre.tasks.neurons import NeuronSymmetry
from syre.tasks.regression import Regression, Ridge
from syre.tasks.vae import VariationalAutoencoder

if TYPE_CHECKING:
    from syre.trainer import Training


class Task(Protocol):
    """What the trainer asks of a task. A loss is written for any number of leading axes, so it serves R replicas."""

    def accept(self, model: nn.Module, data: Any, settings: "Training") -> None:
        """Raise ValueError, one line, for a model, data or settings of training that it cannot train (see `needs`)."""
        ...

    def loss(self, output: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each replica, mean over its batch: [..., batch, ...] -> [...]."""
        ...

    def evaluate(self, learner: Learner, batches: Batches, *, final: bool) -> dict[str, Tensor]:
        """Metrics of each replica, [R]; `final` at the end of training, when costly ones are due."""
        ...


__all__ = [
    "Classification",
    "CollapsedStart",
    "Contrastive",
    "MatrixObjective",
    "ModeConnectivity",
    "NeuronSymmetry",
    "Regression",
    "Ridge",
    "TangentKernel",
    "Task",
    "VariationalAutoencoder",
]
