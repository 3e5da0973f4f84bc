"""One file a measure: what is asked of attention, weights and positions."""
