"""Jobs: their state, their event logs, and the worker processes that do them."""
