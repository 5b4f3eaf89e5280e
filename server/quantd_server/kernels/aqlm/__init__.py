"""AQLM: additive quantization (Egiazarian et al. 2024, arXiv:2401.06118)."""
