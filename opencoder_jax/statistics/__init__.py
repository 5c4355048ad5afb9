"""How sure a figure is: intervals, tests of pairs, power, verdicts. For scores and for ablations."""
