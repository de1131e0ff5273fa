"""The widgets: each binds controls to pictures that the files above compute."""
