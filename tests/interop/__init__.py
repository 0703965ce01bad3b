"""Replication with peers that this project did not write."""
