"""What models make of the same parts in another place: each question an experiment, each answer with its interval."""
