"""Pure functions on tensors: spectra and ranks of representations, linear probes, accuracy, symmetry, dead neurons."""

from syre.metrics.networks import accuracy, dead_units, degree_of_symmetry, duplicated_neurons, symmetric_neurons
from syre.metrics.probe import linear_probe
from syre.metrics.spectra import (
    covariance_spectrum,
    effective_rank,
    numerical_rank,
    rank_99,
    ranks,
    singular_values,
    singular_values_of_product,
    stable_rank,
    threshold_rank,
)
