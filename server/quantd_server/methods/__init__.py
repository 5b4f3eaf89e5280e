"""One module or package a method: its plan rules, its kernels, its config.json entry."""
