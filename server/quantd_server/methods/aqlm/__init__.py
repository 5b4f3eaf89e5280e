"""AQLM (Egiazarian et al. 2024, arXiv:2401.06118): checkpoints that transformers reads."""

from quantd_server.methods.aqlm.method import Aqlm

__all__ = ["Aqlm"]
