"""Compares runs: a table, curves of the mIoU, and figures as in the papers."""
