"""Other people's files, translated into ours: one file a format; see `reading` for the contract that they keep."""
