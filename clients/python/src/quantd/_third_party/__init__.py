"""Generated code of specs that quantd imports, kept below its own name."""
