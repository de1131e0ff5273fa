"""The networks of the course, with their weights."""
