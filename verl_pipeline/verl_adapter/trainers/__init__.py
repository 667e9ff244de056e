"""verl's trainer on our schedule, from filters to the pipelined mode."""
