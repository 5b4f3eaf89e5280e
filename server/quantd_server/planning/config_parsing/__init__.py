"""Hugging Face's `quantization_config`, in all the forms that are around, as typed configuration.

One table a method says which fields there are; ``table.py`` reads and writes by any of them.
``parsing.py`` is the way in. It is for the planner process; the server needs ``parsed.py`` only.
"""
