"""One small file a benchmark, or a family of them; `table.load(NAME, PLACE)` reads the published file of any."""
