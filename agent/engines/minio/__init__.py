"""MinIO on one drive: a snapshot of the drive out, and one exchanged for it in a moment.

`client`, `signing` and `facts` talk to the server; `freezing` holds its S3 calls for a moment and makes sure that this
ends; `snapshot`, `census` and `writing` read a drive; `staging`, `canary`, `exchange` and `restarting` bring another's
content in its place. What a drive looks like is in `layout` and `xlmeta`.
"""
