"""What pyproject.toml cannot say: the folder `weights` is installed as `streampose/weights`."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["streampose*"]), "streampose.weights"],
    package_dir={"streampose.weights": "weights"},
)
