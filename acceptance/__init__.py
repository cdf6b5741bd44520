"""The acceptance suite: the documented criteria, their tests, and the pytest plugin that chooses what is judged."""
