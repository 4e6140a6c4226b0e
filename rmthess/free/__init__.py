"""Free convolution: one operation a file, and the subordination that serves any two measures."""
