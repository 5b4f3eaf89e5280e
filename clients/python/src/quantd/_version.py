"""Version of this package, as in its pyproject.toml."""

VERSION = "0.1.0"
