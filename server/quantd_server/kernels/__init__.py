"""Numerics only: pure functions on arrays, without files, processes or configuration."""
