"""What this machine can run and how to fix what it cannot; works without torch."""
