"""What n8n keeps: a database, files beside it, and the key to the secrets in the database.

The one fact to know: n8n encrypts credentials with a key of its own that is not in the database. Data that comes
without it, or meets another one, cannot be used; n8n 2 does not even start on it.
"""
