"""The HTTP service: routes, admission and errors, start and shutdown."""
