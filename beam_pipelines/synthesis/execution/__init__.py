"""What running a program says about it: whether its tests pass, whether they could fail, what it returns."""
