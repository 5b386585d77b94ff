"""The commands of ``tmm``, a module each: its options, and what it prints."""
