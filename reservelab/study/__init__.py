"""Sweeps over scenarios, their results, and the models fitted to them."""
