"""The Vision Transformer of the paper, its configuration, positions and named sizes."""
