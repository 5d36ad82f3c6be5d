"""Credit for rollouts that somebody else's tools have recorded: read, grouped into siblings, contrasted, scored."""
