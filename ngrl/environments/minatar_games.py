"""MinAtar's games (Young & Tian 2019), which need the package minatar."""

import colorsys
import logging
from typing import Any

import numpy as np

logging.disable()  # that it can't draw without seaborn, which is not needed here
try:
    from minatar.gym import BaseEnv
finally:
    logging.disable(logging.NOTSET)

_PIXELS = 16  # of a picture for each of the game's


class Game(BaseEnv):
    """minatar's game, whose episodes follow from their seed and actions, and which can be drawn."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode without the latest action of the one before, which a sticky first action would repeat."""
        self.game.last_action = 0
        return super().reset(seed, options)

    def render(self) -> Any:
        """The picture [160, 160, 3] uint8: a colour for each kind of object."""
        if self.render_mode != "rgb_array":
            return super().render()
        state = self.game.state()
        kinds = state.shape[-1]
        colours = [(0.0, 0.0, 0.0), *(colorsys.hsv_to_rgb(kind / kinds, 0.7, 1.0) for kind in range(kinds))]
        shown = np.max(state * (np.arange(kinds) + 1), axis=-1)
        picture = (255 * np.array(colours)).astype(np.uint8)[shown]
        return picture.repeat(_PIXELS, axis=0).repeat(_PIXELS, axis=1)
