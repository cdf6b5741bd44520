"""What this machine has, what that allows, and what to do about the rest; works without torch."""
