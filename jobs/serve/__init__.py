"""The query side over HTTP: vectors of queries in the space of the live version, and searches through it."""
