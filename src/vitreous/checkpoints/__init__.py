"""One file a checkpoint format, and the sources a model can be named by."""
