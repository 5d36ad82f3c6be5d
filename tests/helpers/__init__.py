"""What several tests share. A package of its own, so that no file or folder of a checkout can hide it."""
