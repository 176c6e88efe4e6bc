"""What keeps the prose in docs/ true: generated tables, and the commands of the question pages, run."""
