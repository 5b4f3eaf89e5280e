"""Runs one plan in a worker process: read, quantize, write, publish."""
