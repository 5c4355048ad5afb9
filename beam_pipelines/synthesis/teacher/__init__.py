"""Instructions that a strong model writes: what it's asked, how its answers are kept, and what is kept of them."""
