"""How untrusted programs run. Standard library only, Linux only, no privileges; imports nothing else of the project."""
