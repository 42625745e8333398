"""Make-A-Video (Singer et al. 2022) in PyTorch Lightning: text becomes video without text-video data."""
