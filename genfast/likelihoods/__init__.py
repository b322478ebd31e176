"""What the parameters that a model gives for a pixel say of its values."""
