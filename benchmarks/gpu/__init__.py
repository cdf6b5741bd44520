"""What `make gpu-acceptance` runs, step by step."""
