"""Which node holds which pool, and the Ray cluster's state."""
