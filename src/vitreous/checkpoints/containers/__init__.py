"""Tensor files from anywhere, read without trust: no code is run, and sizes are known before memory is taken."""
