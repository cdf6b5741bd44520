"""The HTTP service: what is answered, when it is refused, and how it starts and ends."""
