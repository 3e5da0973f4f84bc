"""The Vision Transformer: its settings, its forward pass, and the sizes that have names."""
