"""One file a figure: numbers in, matplotlib Figure out."""
