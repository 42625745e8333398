"""What training and generating cost on one device: parameters, bytes and FLOPs, counted without weights or a GPU."""
