"""The source of the vectors: one module an area, each with a list `VECTORS`."""
