"""The wire contract: what is generated from the proto files beside this package."""
