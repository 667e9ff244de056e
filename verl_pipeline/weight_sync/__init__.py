"""How weights travel from the trainer's pool to the rollout pool on CPUs. No verl."""
