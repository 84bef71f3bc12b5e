"""Data sets as typed leaf configs: `Mnist().load().train_inputs`."""

from syre.data.files import DataError, data_root
from syre.data.images import Cifar10, Cifar100, Dataset, Digits, FashionMnist, Mnist
from syre.data.synthetic import RandomMatrix

__all__ = [
    "Cifar10",
    "Cifar100",
    "DataError",
    "Dataset",
    "Digits",
    "FashionMnist",
    "Mnist",
    "RandomMatrix",
    "data_root",
]
