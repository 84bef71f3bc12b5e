"""Data sets as typed leaf configs: `Mnist().load().train_inputs`."""

from syre.data.colour import Cifar10, Cifar100, RgbDigits
from syre.data.continual import PermutedMnist, RandomLabels
from syre.data.files import DataError, data_root
from syre.data.images import Dataset, DataSource, Digits, FashionMnist, Mnist
from syre.data.linear_regression import LinearRegression
from syre.data.synthetic import RandomMatrix, TeacherStudent
from syre.data.tabular import Diabetes
from syre.data.text import Text
