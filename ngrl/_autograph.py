"""Tells AutoGraph that ngrl's code is written for graphs already, as it knows TensorFlow's and Keras' to be.

Otherwise `tf.function(agent.train)` rewrites each function of ngrl's on its way before it traces it, which takes longer
than all the tracing. What users hand in themselves, and their layers, are converted as before.

AutoGraph's list of such packages has no public name; without it, tracing is merely slow.
"""

import contextlib

with contextlib.suppress(ImportError, AttributeError):
    from tensorflow.python.autograph.core import config

    config.CONVERSION_RULES = (config.DoNotConvert("ngrl"), *config.CONVERSION_RULES)
