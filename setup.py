"""Packaging of ngrl: ranges and extras. requirements.lock holds the exact set that make and CI install."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent


def _version() -> str:
    """`ngrl.__version__`, read without importing the package."""
    match = re.search(r'^__version__ = "(.+)"$', (HERE / "ngrl" / "__init__.py").read_text(), re.MULTILINE)
    if match is None:
        raise RuntimeError('ngrl/__init__.py has no line __version__ = "..."')
    return match.group(1)


def _long_description() -> str:
    readme = HERE / "README.md"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


# envpool has no wheel for Python 3.10.
ENVPOOL = "envpool>=1.2.5,<1.3; python_version >= '3.11'"
MATPLOTLIB = "matplotlib>=3.10"
SWEEP = ["ray[tune]>=2.55,<2.56", "pyarrow<26"]
REPORT = ["rliable>=1.2,<1.3", "pandas<3", MATPLOTLIB]
DOCS = ["mkdocs>=1.6,<2", "mkdocs-material>=9.6,<10", "mkdocstrings[python]>=1.0,<2", "latex2mathml>=3.77,<4"]

setup(
    name="ngrl",
    version=_version(),
    description="Natural-gradient reinforcement learning in TensorFlow and TF-Agents",
    long_description=_long_description(),
    long_description_content_type="text/markdown",
    author="The ngrl contributors",
    license="Apache-2.0",
    packages=find_packages(include=["ngrl", "ngrl.*"]),
    package_data={"ngrl.experiments": ["published.json"]},
    # TF-Agents 0.19 imports distutils, and its pinned pygame 2.1.3 has no wheel after 3.11.
    python_requires=">=3.10,<3.12",
    install_requires=[
        "tensorflow>=2.21,<2.22",
        "tf-keras>=2.21,<2.22",
        "tf-agents>=0.19,<0.20",
        "tensorflow-probability>=0.23,<0.24",
        # TF-Agents' CategoricalProjectionNetwork fails on NumPy 2.
        "numpy>=1.26,<2",
        # 1.3 brings pygame-ce, which overwrites files of the pygame that TF-Agents pins.
        "gymnasium[classic-control,box2d]>=1.2.3,<1.3",
        # TensorFlow 2.21 no longer depends on it, and tf.summary raises without it.
        "tensorboard>=2.20",
        "gin-config>=0.5,<0.6",
        "absl-py>=2.1",
        "tqdm>=4.66",
        "pillow>=10",
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]>=2.21,<2.22"],
        "sweep": SWEEP,
        "report": REPORT,
        "docs": DOCS,
        "envs": [ENVPOOL, "gymnasium[mujoco,atari]>=1.2.3,<1.3"],
        "dev": [
            "pytest>=8",
            "pytest-xdist>=3.6",
            "hypothesis>=6.100",
            "scipy>=1.11",
            "ruff>=0.14",
            "mypy>=1.10",
            *SWEEP,
            *REPORT,
            ENVPOOL,
            # The MuJoCo experiments are tested too.
            "gymnasium[mujoco]>=1.2.3,<1.3",
        ],
    },
    entry_points={"console_scripts": ["ngrl = ngrl.launch:main"]},
)
