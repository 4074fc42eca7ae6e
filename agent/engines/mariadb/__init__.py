"""MariaDB: one database dumped in one transaction, loaded beside the live one, its tables exchanged by one RENAME.

Everything goes through MariaDB's own client programs, so there is no driver. What a dump may do is decided twice: by
`statements`, which lets only a dump's own statements through, and by the server, where a throw-away user that may do
nothing outside the new schema loads them.
"""
