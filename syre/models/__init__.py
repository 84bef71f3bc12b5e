"""Models: a frozen dataclass each (the leaf of a config), whose `build(input_shape, outputs)` gives the module.

A module says in `gives` what its forward pass gives: so a task knows whether it can train it (`syre.tasks.needs`).

- "logits": [batch, outputs]; with `features=True` also the last hidden layer, [batch, width];
- "projections": the same, of a width that has nothing to do with the classes;
- "two networks": the logits of two, each on its half of the batch; with `at=l` those of the one between them at l;
- "an autoencoder": reconstruction, mean and log-variance; `part="encoder"` and `part="decoder"` are its halves;
- "a linear form": [batch, 1], a linear function whose coefficients are products of its parameters;
- "a point": [1, N], whatever the input.
"""

from syre.models.cnn import ContinualCNN
from syre.models.linear import DiagonalLinear
from syre.models.mlp import MLP, CollapsedMLP
from syre.models.noise import Dropout, Noisy
from syre.models.pair import Pair
from syre.models.point import Point
from syre.models.resnet import ResNet18
from syre.models.simclr import SimCLR
from syre.models.vae import BetaVAE
from syre.models.vit import ViT
