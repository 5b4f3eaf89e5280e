"""Generated from buf/; see tools/generate.py."""
