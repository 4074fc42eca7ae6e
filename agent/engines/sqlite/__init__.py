"""An app's SQLite databases, opened by confined children: asked, copied in one moment, looked through as uploads."""
