"""Stages that only experiments want: arms are told apart by them, no recipe uses them."""
