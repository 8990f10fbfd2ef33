"""Worked examples of the papers' smaller claims: they draw figures and write tables, and train no agent.

`ngrl.launch` runs one where a gin file says `main.entry = @name`.
"""

from ngrl import _tf_agents  # noqa: F401  isort: skip  (quiet import of tf_agents, which ngrl.training needs)
