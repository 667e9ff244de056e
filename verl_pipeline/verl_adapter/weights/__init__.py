"""How weights leave the trainer, reach an engine, and are compared on both sides."""
