"""Lightning callbacks that a configuration adds by class_path, for example ``callbacks.SampleGrid``."""

from callbacks.sample_grid import SampleGrid
from callbacks.throughput import Throughput

__all__ = ["SampleGrid", "Throughput"]
