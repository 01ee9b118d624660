"""Trains flagfiles with several seeds, evaluates them alike and compares them on one page."""
