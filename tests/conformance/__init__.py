"""A suite of named cases for tools that draw loss surfaces and measure Hessian spectra."""
