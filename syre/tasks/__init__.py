"""Tasks: which loss is minimised and what is measured (`syre.trainer.Task`), or what is measured without training."""

from syre.tasks.classification import Classification
from syre.tasks.collapse import CollapsedStart, TangentKernel
from syre.tasks.connectivity import ModeConnectivity
from syre.tasks.contrastive import Contrastive
from syre.tasks.diagnosed import DiagnosedAutoencoder, DiagnosedClassification, DiagnosedStart
from syre.tasks.language import Language
from syre.tasks.matrix import MatrixObjective
from syre.tasks.neurons import NeuronSymmetry
from syre.tasks.regression import Regression, Ridge
from syre.tasks.vae import VariationalAutoencoder
from syre.trainer import Interaction, Measurement, Task
