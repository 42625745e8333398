"""Benchmarks: ``python -m eval benchmark=moving_shapes system=make_a_video system.model=runs/demo``."""
