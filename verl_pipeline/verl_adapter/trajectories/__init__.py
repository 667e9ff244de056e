"""Trajectories in TransferQueue: tags, fields, order."""
