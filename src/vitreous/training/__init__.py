"""Training: configuration, loop, optimizer, evaluation, runs and recipes."""
