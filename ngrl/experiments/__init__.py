"""Studies: many runs of many experiments, and the tables and figures that are made of them.

Importing this package loads nothing else: what only reads run directories, or waits for runs, needs no TensorFlow.
"""
