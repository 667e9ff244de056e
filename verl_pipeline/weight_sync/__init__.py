"""How weights travel from the trainer's pool to the rollout pool on CPUs, and how their arrival is
checked anywhere. No verl.
"""
