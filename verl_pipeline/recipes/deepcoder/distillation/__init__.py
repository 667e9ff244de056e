"""Distils a teacher: its right answers as SFT data, or its log-probs of the student's answers."""
