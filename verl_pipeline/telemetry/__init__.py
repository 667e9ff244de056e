"""What a run did and when: events in files under its folder, the accounting of every second of each
pool, and advice. Readers need neither verl nor Ray nor torch.
"""
