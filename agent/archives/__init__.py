"""A directory as a tar stream and back, never outside that directory.

Reading and writing are synchronous and hold a few mebibytes whatever the size: writing runs in a worker thread of the
agent, reading in a jailed child (`extractor_child`), since an uploaded archive is hostile. What leaves a directory is
opened component by component without following links, and so is what enters one.
"""
