"""What several formats of one family share: the names and habits of Flax, of transformers and of timm."""
