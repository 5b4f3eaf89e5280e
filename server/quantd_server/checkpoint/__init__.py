"""Checkpoints on disk: safetensors and GGUF headers, lazy tensors, layouts, atomic output.

Headers are parsed in the light server process, so only ``reading`` (the worker's) may use numpy.
"""
