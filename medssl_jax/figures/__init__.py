"""Compound figures: simulate, detect, separate, score. Boxes are float32 [N, 4], pixel corners (x0, y0, x1, y1), x1 and y1 exclusive."""
