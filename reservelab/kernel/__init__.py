"""Real Linux: the proposal of 2004 in a user-mode kernel, and what it is held against."""
