"""What every method against lost plasticity costs, as a training step of figure 11 beside one of plain training."""

from collections.abc import Iterator
from dataclasses import replace
from statistics import median

import torch

from scripts.bench_table import Effort, Row, trainer_step
from syre.batches import Batches
from syre.data import Dataset
from syre.learners import Replica, Single
from syre.models import ContinualCNN
from syre.optim import SGD
from syre.regularizers import Dropout, L2Init, Regularizer, ShrinkPerturb, Syre, Vanilla
from syre.rivals import ContinualBackprop, Noisy, Redo, SelfNormalizedResets, Spectral, WeightClipping
from syre.seeding import generator
from syre.tasks import Classification

SHAPE, CLASSES, BATCH, SAMPLES = (1, 28, 28), 10, 64, 1024
METHODS: list[Regularizer] = [
    Syre(weight_decay=0.15),
    L2Init(weight_decay=0.15),
    ShrinkPerturb(weight_decay=0.15),
    Dropout(rate=0.1, weight_decay=0.15),
    Redo(period=20),
    ContinualBackprop(rate=1e-3),
    SelfNormalizedResets(),
    WeightClipping(),
    Spectral(),
    Noisy(),
]


def learner(regularizer: Regularizer) -> Single:
    """A run at figure 11's size, from the start that all of them have."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ContinualCNN().build(SHAPE, CLASSES)
    regularizer.prepare(model, 0)
    optimizer = SGD(lr=0.01, momentum=0.9).build(model, regularizer.weight_decay, regularizer.scope)
    handle = regularizer.attach(optimizer, model, 0)
    return Single(Replica(model=model, optimizer=optimizer, handle=handle, noise=generator(0, "noise")))


def rivals(effort: Effort) -> Iterator[Row]:
    """Of a period all that falls due within the time of a round: two of Redo's, say, in forty steps."""
    x, y = torch.randn(SAMPLES, *SHAPE), torch.randint(CLASSES, (SAMPLES,))
    data = Dataset(train_inputs=x, train_targets=y, test_inputs=x[:1], test_targets=y[:1], num_classes=CLASSES)
    batches = Batches([data], scales=[1.0], seeds=[0], batch_size=BATCH)
    loss = Classification().loss
    steps = {method.name: trainer_step(learner(method), batches, loss) for method in [Vanilla(), *METHODS]}
    taken = replace(effort, seconds=5 * effort.seconds).times(steps)
    note = f"plain {1e3 * median(taken['vanilla']):.1f} ms"
    for method in METHODS:
        yield Row(
            f"{method.name} / plain: CNN of figure 11, batch {BATCH}", taken[method.name] / taken["vanilla"], "", note
        )
