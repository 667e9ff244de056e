"""Settings that follow from others, and verl's defaults."""
