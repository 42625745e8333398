"""Sources of images and videos, and the stateless order in which a run reads them; knows no stage."""
