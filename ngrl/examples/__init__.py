"""Worked examples of the papers' smaller claims: they draw figures and write tables, and train no agent.

`ngrl.launch` runs one where a gin file says `main.entry = @name`.
"""
