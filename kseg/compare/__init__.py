"""Compares runs: a table, curves of the mIoU, and the papers' figures."""
