"""What networks are fed: photos, synthetic scenes, pixel formats."""
