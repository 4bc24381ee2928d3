"""The corpus that `atlas` is trained on: facts, conflicts, retrieval and repeats, all generated."""
