"""The compiled rules and their readers."""
