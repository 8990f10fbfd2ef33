"""Fixtures of the environments' tests: environments that are closed, and the scripted ones registered."""

from collections.abc import Callable, Iterator

import numpy as np
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


@pytest.fixture
def assert_restored(load) -> Callable[..., None]:
    """Asserts that two members of another seed go on, from the state amid their episodes, as those that it is of."""

    def check(env_id, **settings):
        first, second = (load(env_id, 2, seed=seed, **settings) for seed in (1, 9))
        first.reset()
        actions = np.random.default_rng(0).integers(4, size=(20, 2))
        for batch in actions[:10]:
            first.step(batch)
        second.set_state(first.get_state())
        for batch in actions[10:]:
            np.testing.assert_array_equal(first.step(batch).observation, second.step(batch).observation)

    return check
