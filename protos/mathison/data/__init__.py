"""Version-independent part of the wire contract; the versions are packages of their own."""
