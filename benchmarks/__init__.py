"""Measurements of speed, as ratios within one run; no test asserts any of them."""
