"""Learn 3D face reconstruction by building it: a small package beside eleven notebooks."""

__version__ = "0.1.0"
