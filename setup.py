"""What pyproject.toml cannot say: of the files in syre/ itself, the package on PyPI has only the library's."""

from setuptools import setup
from setuptools.command.build_py import build_py


class Library(build_py):
    """The modules beside `syre/core` (trainer, regularizers, ...) belong to the reproduction, which is the checkout."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        found = super().find_package_modules(package, package_dir)
        return [module for module in found if package != "syre" or module[1] in ("__init__", "__main__")]


setup(cmdclass={"build_py": Library})
