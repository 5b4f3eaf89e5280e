"""Headers, configuration and host in; findings and a plan out. No weight is read."""
