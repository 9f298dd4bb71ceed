"""Where images come from and how they become a stream of batches of one static shape."""
