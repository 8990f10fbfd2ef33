"""Studies: experiments, settings and seeds, run as trials on one machine or a cluster.

Whoever waits for trials needs no TensorFlow: the modules are imported by name.
"""
