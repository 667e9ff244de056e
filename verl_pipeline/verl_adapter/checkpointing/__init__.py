"""What a checkpoint holds beside verl's own files, and where."""
