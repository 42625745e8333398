"""Lightning callbacks that a configuration adds by class_path, for example ``callbacks.SampleGrid``."""

from callbacks.sample_grid import SampleGrid
from callbacks.throughput import Throughput
from callbacks.video_metrics import VideoMetrics

__all__ = ["SampleGrid", "Throughput", "VideoMetrics"]
