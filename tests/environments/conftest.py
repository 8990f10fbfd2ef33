"""Fixtures of the environments' tests: environments that are closed, and the scripted ones registered."""

from collections.abc import Callable, Iterator

import pytest
import scripted_environments

from ngrl import environments
from ngrl.environments.bridge import GymnasiumEnvironment

scripted_environments.register()


@pytest.fixture
def load() -> Iterator[Callable[..., GymnasiumEnvironment]]:
    """`ngrl.environments.load`, closing what it made when the test ends."""
    made = []

    def load_and_keep(*args, **kwargs):
        made.append(environments.load(*args, **kwargs))
        return made[-1]

    yield load_and_keep
    for environment in made:
        environment.close()
