"""What a database has beside its content, read from one and given to another."""
