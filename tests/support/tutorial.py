"""Code that docs/tutorial.md shows, as modules."""

import runpy
from pathlib import Path

_TEXT = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text(encoding="utf-8")


def run_block(title, folder):
    """What the block of code with this title defines, run as a file in a folder."""
    (block,) = [text for text in _TEXT.split("```") if f'title="{title}"' in text]
    (folder / title).write_text(block.split("\n", 1)[1], encoding="utf-8")
    return runpy.run_path(str(folder / title))
