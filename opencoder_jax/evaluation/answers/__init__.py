"""What a model answered, and the program that is found in it."""
