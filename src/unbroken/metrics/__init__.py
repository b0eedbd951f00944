"""What an answer took: time and money."""
