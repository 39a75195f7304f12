"""One evaluation of the user's model: its copy, its normalization layers, its batches."""
