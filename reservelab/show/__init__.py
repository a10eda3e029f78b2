"""Figures and text from tidy frames; nothing is estimated here."""
