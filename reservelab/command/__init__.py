"""The command line's verbs, by room: each reads its options, calls the package, prints."""
