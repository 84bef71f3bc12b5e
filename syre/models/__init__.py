"""Models: an `Architecture` each, a frozen dataclass (the leaf of a config), whose `build` gives the module.

What a module must do: take inputs [batch, ...] of the shape that it was built for, draw all noise by `Noisy`, and read
no plain attribute that differs between runs which are to train as one. What it may say beside that, as a `Model`:

- `gives`, what its forward pass gives, by which a task knows whether it can train it (`syre.tasks.needs`):
  - "logits": [batch, outputs]; with `features=True` also the last hidden layer, [batch, width];
  - "projections": the same, of a width that has nothing to do with the classes;
  - "two networks": the logits of two, each on its half of the batch; with `at=l` those of the one between them at l;
  - "an autoencoder": reconstruction, mean and log-variance; `part="encoder"` and `part="decoder"` are its halves;
  - "a linear form": [batch, 1], a linear function whose coefficients are products of its parameters;
  - "a point": [1, N], whatever the input;
  - "next tokens": logits of the next token at each place of [batch, context] tokens, [batch, context, vocabulary]; with
    `features=True` also the residual stream after each block, [batch, depth, context, width];
- `units()`, its hidden units, layer by layer: where their outputs are seen, what makes them and what takes them
  (`Units`); a regularizer that replaces units needs a model that says so;
- `leading_dims`, `decayed`, `bookkeeping` and `drawn_as`: see `Model`.

One with running statistics (BatchNorm) trains alone.
"""

from syre.models.base import Architecture, Model
from syre.models.cnn import ContinualCNN
from syre.models.gpt import GPT
from syre.models.linear import DiagonalLinear
from syre.models.mlp import MLP, CollapsedMLP
from syre.models.noise import Dropout, Noisy
from syre.models.pair import Pair
from syre.models.point import Point
from syre.models.resnet import ResNet18
from syre.models.simclr import SimCLR
from syre.models.stock import Stock
from syre.models.units import Units
from syre.models.vae import BetaVAE
from syre.models.vit import ViT
