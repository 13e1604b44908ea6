"""Encodes the planned texts on Ray and stores their vectors."""
