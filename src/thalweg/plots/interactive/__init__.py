"""Figures that can be turned, zoomed and asked: plotly, from the same data as the pictures."""
