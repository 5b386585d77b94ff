"""The native core: integers and memory only; opens, parses, names and logs nothing."""
