"""Training in stages: what they are, what refuses them, and the runner that goes through them."""
