"""The two physics of Slippery Ant, as parameters of tests: PyBullet's packages end at Python 3.11."""

from importlib.util import find_spec

import pytest

needs_bullet = pytest.mark.skipif(find_spec("pybullet") is None, reason="PyBullet has no packages for this Python")
BACKENDS = ["mujoco", pytest.param("pybullet", marks=needs_bullet)]
