"""The portable archive: what every S3 server can hold, as files that a person can open."""
