"""Who does the generating behind the server: one interface, three engines."""
