"""How a run starts and what it prints of itself."""
