"""What verdicts say together: scores, comparisons, reports."""
