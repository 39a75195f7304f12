"""Other libraries' training loops and trackers: a file each, which needs that library."""
