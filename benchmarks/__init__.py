"""What `make bench` measures: JSON lines on stdout, progress and complaints on stderr."""
