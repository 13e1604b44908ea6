"""A run as one HTML page: what it did, when, on what, beside the runs before it."""
