"""Writes planned rows with their stored vectors into the index, then into the ledger."""
