"""The geometry of a landscape around a point: directions, surfaces, spectra."""
