"""For tests and checks: a tiny model, seeded runs, equivalence with verl's ``sync``."""
