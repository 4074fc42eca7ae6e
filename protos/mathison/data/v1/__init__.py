"""Messages and services of mathison.data.v1; the stubs are made by `make stubs`."""
