"""The running server: asked, told, frozen, restarted."""
