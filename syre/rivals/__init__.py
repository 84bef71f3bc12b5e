"""Rivals: what others have proposed to keep a network able to learn, as regularizers of the usual form.

Three replace hidden units (`redo`, `continual_backprop`, `self_normalized_resets`) and need a model that says which
units it has (`syre.models.Units`); the others act on the parameters of any model. All train alone: an ensemble refuses
them. `weight_decay` is the optimizer's own, beside the method. L2 Init, shrink and perturb and dropout are in
`syre.regularizers`.

The settings to compare them by: each docstring lists eight, for some 1,560 steps of SGD at a learning rate of 0.01 and
batches of 64 in ten tasks (figure 11), that hold its authors' values and go as far to both sides as so short a run
asks for.
"""

from syre.rivals.continual_backprop import ContinualBackprop
from syre.rivals.noisy import Noisy
from syre.rivals.redo import Redo
from syre.rivals.self_normalized_resets import SelfNormalizedResets
from syre.rivals.spectral import Spectral
from syre.rivals.weight_clipping import WeightClipping
