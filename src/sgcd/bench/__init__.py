"""What scoring costs, as ratios that are taken in one run; absolute times mean nothing on a machine that is shared."""
