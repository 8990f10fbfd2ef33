"""Packaging of ngrl: ranges and extras. requirements.lock holds the exact set that make and CI install."""

import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

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


class BuildWithExperiments(build_py):
    """Puts gin/ and launch/ into the wheel, as ngrl/_data/; an editable installation reads the clone's own."""

    def run(self) -> None:
        """Copy what a wheel holds."""
        super().run()
        if not self.editable_mode:
            for source, target in self._data():
                self.mkpath(str(Path(target).parent))
                self.copy_file(source, target)

    def _data(self) -> list[tuple[str, str]]:
        data = Path(self.build_lib, "ngrl", "_data")
        files = [path for folder in ("gin", "launch") for path in sorted((HERE / folder).rglob("*")) if path.is_file()]
        return [(str(path), str(data / path.relative_to(HERE))) for path in files]

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """All files that `run` writes, for the wheel's record."""
        return [*super().get_outputs(include_bytecode), *(target for _, target in self._data())]


# envpool has no wheel for Python 3.10.
ENVPOOL = "envpool>=1.2.5,<1.3; python_version >= '3.11'"
MINATAR = ["minatar>=1.0.15,<1.1"]
# gymnasium's own preprocessing resizes with OpenCV.
ATARI = ["ale-py>=0.11,<0.13", "opencv-python-headless>=4.10,<6"]
MATPLOTLIB = "matplotlib>=3.10"
SWEEP = ["ray[tune]>=2.55,<2.56", "pyarrow>=14,<26"]
REPORT = ["rliable>=1.2,<1.3", "scipy>=1.14", "pandas>=2.1,<3", MATPLOTLIB]
DOCS = ["mkdocs>=1.6,<2", "mkdocs-material>=9.6,<10", "mkdocstrings[python]>=1.0,<2", "latex2mathml>=3.77,<4"]

setup(
    name="ngrl",
    version=_version(),
    description="Natural-gradient reinforcement learning in TensorFlow and TF-Agents",
    long_description=_long_description(),
    long_description_content_type="text/markdown",
    author="The ngrl contributors",
    license="Apache-2.0",
    keywords="reinforcement-learning natural-gradient fisher-information tensorflow tf-agents trpo acer dqn optimizer",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 14)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    project_urls={
        "Natural-gradient deep Q-learning (Knight and Lerner 2018)": "https://arxiv.org/abs/1803.07482",
        "TF-Agents": "https://github.com/tensorflow/agents",
    },
    packages=find_packages(include=["ngrl", "ngrl.*"]),
    package_data={"ngrl": ["py.typed"], "ngrl.reports": ["published.json"]},
    cmdclass={"build_py": BuildWithExperiments},
    # TensorFlow 2.21 has wheels for these.
    python_requires=">=3.10,<3.14",
    # TF-Agents is not among them: its pins (gym, pygame 2.1.3, typing-extensions 4.5) refuse Python 3.12, and on every
    # Python torch, wandb and gymnasium 1.4, while its code needs none of those. What it does need is here; itself comes
    # by `pip install --no-deps tf-agents==0.19.0`.
    install_requires=[
        "tensorflow>=2.21,<2.22",
        "tf-keras>=2.21,<2.22",
        "tensorflow-probability>=0.23,<0.26",
        "numpy>=1.26,<3",
        # Brings pygame up to 1.2 and pygame-ce from 1.3 on; they share files, so that there must never be both.
        "gymnasium[classic-control,box2d]>=1.2.3,<1.5",
        # TensorFlow 2.21 no longer depends on it, and tf.summary raises without it.
        "tensorboard>=2.21",
        "gin-config>=0.5,<0.6",
        "absl-py>=2.1",
        "tqdm>=4.66",
        "pillow>=10",
        # TF-Agents and gymnasium pickle with it.
        "cloudpickle>=2.2",
        # Serves TF-Agents' `import distutils`, which Python had until 3.11.
        "setuptools>=68; python_version >= '3.12'",
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]>=2.21,<2.22"],
        "sweep": SWEEP,
        "report": REPORT,
        "docs": DOCS,
        "minatar": MINATAR,
        "atari": ATARI,
        "envs": [ENVPOOL, "gymnasium[mujoco]>=1.2.3,<1.5", *MINATAR, *ATARI],
        "dev": [
            "pytest>=8",
            "pytest-xdist>=3.6",
            "hypothesis>=6.100",
            "scipy>=1.14",
            "ruff>=0.14",
            "mypy>=1.10",
            *SWEEP,
            *REPORT,
            ENVPOOL,
            "scikit-learn>=1.5",  # the images of tools/keras_digits.py
            # The experiments with MuJoCo and with pixels are tested too.
            "gymnasium[mujoco]>=1.2.3,<1.5",
            *MINATAR,
            *ATARI,
        ],
    },
    entry_points={"console_scripts": ["ngrl = ngrl.__main__:main"]},
)
