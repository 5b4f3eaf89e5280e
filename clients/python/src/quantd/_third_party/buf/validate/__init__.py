"""Generated from buf/validate/; see tools/generate.py."""
