"""Dataset -> checkpoint. Nothing is here yet."""
