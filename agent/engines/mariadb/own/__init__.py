"""Servers of the agent's own, on data directories that it makes."""
