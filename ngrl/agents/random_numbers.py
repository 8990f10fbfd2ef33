"""Random numbers inside compiled code."""

#: The generator that stateless draws name. Where none is named, XLA takes one that is a hundred times as slow on a CPU.
GENERATOR = "philox"
