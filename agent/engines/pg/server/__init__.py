"""A server as a role reaches it: its roles, databases and disk, and its own client programs."""
