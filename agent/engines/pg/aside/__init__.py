"""A database's content taken aside within it, brought back, or dropped in pieces."""
