"""An archive replayed into an engine that is thrown away afterwards, to learn the fingerprint of what it holds.

Runs on any machine, without an app and without a controller: `mathison verify` starts it as a program of its own.
"""
