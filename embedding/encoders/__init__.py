"""Encoders: text in, vectors out. The contract, the backends, the choice among them and the fidelity gate."""
