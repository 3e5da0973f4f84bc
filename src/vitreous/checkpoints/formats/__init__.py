"""Other people's files, translated into ours: one file a format; `vitreous.checkpoints.reading` says how."""
