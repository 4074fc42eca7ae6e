"""A server and a schema as an account reaches them."""
