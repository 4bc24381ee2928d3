"""The commands about edits: what is asked for, how it is made, what it changed, and the report."""
