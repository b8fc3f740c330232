"""docs/RESULTS.md, generated from the result files and from the published figures."""
