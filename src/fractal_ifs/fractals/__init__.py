"""Fractals, approximation curves and the distributions they make: section 2 of the paper. Needs numpy, scipy, torch."""
