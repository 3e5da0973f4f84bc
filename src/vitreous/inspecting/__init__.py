"""Looking inside a model: the passes over the images, and what is kept of them."""
