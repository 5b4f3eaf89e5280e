"""Which checkpoints can become a GGUF file: a registry from ``model_type`` to a family.

Used by planner and worker processes only: ``describe`` imports the ``gguf`` package, which
brings numpy.
"""

from quantd_server.methods.gguf.architectures.convert import FAMILIES, describe

__all__ = ["FAMILIES", "describe"]
