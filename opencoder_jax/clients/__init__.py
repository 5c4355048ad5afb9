"""Asking models that others serve: a client of OpenAI's protocol, and a record of all that was answered."""
